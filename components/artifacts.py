"""The artifact types that this pipeline adds to TFX's own, and what several steps read from or write to TFX's.

TFX writes an artifact's `TYPE_NAME` into a compiled package and imports the class by it in each container. The name may
have a single dot, so the package `components` finds these classes for it: a class here needs no entry anywhere else.
"""

from tfx.components.evaluator import constants
from tfx.dsl.io import fileio
from tfx.types import artifact, artifact_utils
from tfx.utils import io_utils

from marco_data import shards


class Decision(artifact.Artifact):
    """`decision.json` (`components.gate`), and the champion's `predictions.parquet` where it was compared."""

    TYPE_NAME = "components.Decision"


class Quarantine(artifact.Artifact):
    """Records that failed a check: `quarantine.csv`, `counts.csv`, `summary.json`, and the records themselves."""

    TYPE_NAME = "components.Quarantine"


class Report(artifact.Artifact):
    """`report.html` by itself, `report.json` with every number of it, `MODEL_CARD.md`, and `figures/*.svg`."""

    TYPE_NAME = "components.Report"


class Sources(artifact.Artifact):
    """`sources.npz`: the source of each training and validation image (`components.leave_out`)."""

    TYPE_NAME = "components.Sources"


class LeaveOneOut(artifact.Artifact):
    """`leave_out.json`, `leave_out.html`, and `predictions.parquet` of models that have not seen the images' source."""

    TYPE_NAME = "components.LeaveOneOut"


class Deployment(artifact.Artifact):
    """`deployment.json`: what `components.vertex.rollout.Deployment.record` says, or `deployed` false."""

    TYPE_NAME = "components.Deployment"


def bless(blessing: artifact.Artifact, model: artifact.Artifact, blessed: bool) -> None:
    """Marks the artifact `blessing` as TFX's own Evaluator does, so that TFX's other components understand it."""
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(f"{blessing.uri}/{name}", "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)


def is_blessed(blessing: artifact.Artifact) -> bool:
    """Returns whether `bless` marked the artifact as that of a good model."""
    return bool(blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY))


def validation_split(examples: artifact.Artifact) -> str:
    """Returns the split that training may look at: `validation`, or `eval` of a set taken as published."""
    return (
        shards.VALIDATION
        if shards.VALIDATION in artifact_utils.decode_split_names(examples.split_names)
        else shards.EVAL
    )


def split_files(examples: artifact.Artifact, split: str) -> list[str]:
    """Returns the TFRecord files of a split, in the order of their names."""
    folders = artifact_utils.get_split_uris([examples], split)
    return sorted(file for folder in folders for file in fileio.glob(io_utils.all_files_pattern(folder)))
