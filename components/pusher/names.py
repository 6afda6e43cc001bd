"""Names of files in a published version."""

MODEL_FILE = "saved_model.pb"
"""The file without which there is no model: whoever looks for versions takes none that lacks it."""

RECORD = "assets.extra/push.json"
"""Our note in a version; the rest of it is the model as it was."""
