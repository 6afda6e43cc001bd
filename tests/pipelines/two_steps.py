"""Two small TFX steps; TFX finds them by their module."""

from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model


@component
def Make(examples: OutputArtifact[Examples]):
    """Writes two shards."""
    for number in (1, 2):
        path = Path(examples.uri, "Split-train", f"shard-{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("whole")


@component
def Use(examples: InputArtifact[Examples], model: OutputArtifact[Model]):
    """Reads them."""
    Path(model.uri).mkdir(parents=True, exist_ok=True)
    Path(model.uri, "model").write_text("".join(path.read_text() for path in Path(examples.uri).rglob("shard-*")))
