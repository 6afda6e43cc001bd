"""TFX's mark on a model that may be published."""

from tfx import types
from tfx.components.evaluator import constants
from tfx.utils import io_utils


def bless(blessing: types.Artifact, model: types.Artifact, blessed: bool) -> None:
    """Marks the artifact as TFX's own Evaluator does, so that TFX's other components understand it."""
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(f"{blessing.uri}/{name}", "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
