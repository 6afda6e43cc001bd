"""The champion, the model that a run must beat: where it is looked up, how it is named, and where its classes are.

MLflow's registry names it by the alias `champion`. Which champion a run must beat depends on the run's `signature`: a
run that repeats the training of today's champion is judged against the one before it, as that training was.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import mlflow_registry, mlflow_runs, mlflow_store, published_models, settings
from components.example_gen import files
from marco_model import errors, labels, model_directory, network, store

if TYPE_CHECKING:
    from tfx.orchestration.data_types import RuntimeParameter

log = logging.getLogger(__name__)

SERVING_SIGNATURE = "serving_examples"
START = "start"
"""The version of the model that training began with, which is the champion where there is no other."""
REMEDY = (
    "publish it again (marco models promote VERSION), name another model_name for models of another kind, or set "
    "gate.champion to another model's URI or to none"
)


def write_champion(model: str, version: str = "") -> str:
    """Returns the parameter `champion`: JSON with the `model`'s URI, a folder or `gs://`, and its `version`."""
    return json.dumps({"model": model, "version": version}, sort_keys=True)


def parse_champion(text: str) -> dict[str, str] | None:
    """Returns what `write_champion` wrote; None for the empty text, which means that there is no champion."""
    return {"model": "", "version": "", **json.loads(text)} if text else None


def describe_champion(champion: dict[str, str]) -> str:
    """Returns the champion's name for a sentence."""
    if champion["version"] == START:
        return f"{rival(champion)} ({champion['model']})"
    return f"version {champion['version']} at {champion['model']}" if champion["version"] else champion["model"]


def rival(champion: dict[str, str]) -> str:
    """Returns what the champion is to a candidate."""
    return "the model that training began with" if champion["version"] == START else "the champion"


def starting_champion(initial: str, classes: Sequence[str]) -> dict[str, str] | None:
    """Returns the model that `network.initial` names as the champion to beat.

    None if training began at random (also `initial` empty), or if that model does not have these classes. Raises
    `InputError` if it does not exist.
    """
    if initial in ("", network.RANDOM):
        return None
    names: Sequence[str] = labels.CLASSES
    if initial != network.RELEASED:
        with published_models.on_this_machine(initial) as folder:
            names = model_directory.class_names(folder)
    return {"model": initial, "version": START} if set(names) == set(classes) else None


def check_classes(champion: str, classes: Sequence[str]) -> None:
    """Raises `InputError` if the champion (`write_champion`) lies on this machine and has other classes.

    The gate would refuse every model for that, but only after the training.
    """
    to_beat = parse_champion(champion)
    if to_beat and (Path(to_beat["model"]) / model_directory.MODEL_FILE).is_file():
        names = model_directory.class_names(Path(to_beat["model"]))
        if set(names) != set(classes):
            raise errors.InputError(
                f"the champion, {describe_champion(to_beat)}, has the classes {', '.join(names)}, and this run trains "
                f"{', '.join(classes)}; {REMEDY}"
            )


@contextlib.contextmanager
def saved_model(champion: dict[str, str], scratch: str, tracking: str = "") -> Iterator[str]:
    """Yields the folder or URI of the champion; the published classifier is written to the folder `scratch` first.

    A champion `models:/NAME/VERSION` is read from the MLflow store at `tracking`.
    """
    if champion["model"].startswith(mlflow_registry.REGISTERED):
        with mlflow_registry.on_this_machine(tracking, champion["model"]) as folder:
            yield str(folder)
        return
    if champion["model"] != network.RELEASED:
        yield champion["model"]
        return
    from marco_model import weights

    files.delete_tree(scratch)  # Left by an attempt that was killed.
    try:
        weights.export_published(scratch)
        yield scratch
    finally:
        files.delete_tree(scratch)


def champion_columns(folder: Path, classes: Sequence[str]) -> list[int]:
    """Returns where among the scores of the model in `folder` each of `classes` is.

    Raises `InputError` if its classes are others, or if it cannot be loaded or takes no examples.
    """
    names = model_directory.class_names(folder)
    if set(names) != set(classes):
        raise errors.InputError(f"its classes are {', '.join(names)}, and the candidate's are {', '.join(classes)}")
    from marco_model import saved_model

    # TensorFlow has no kind of its own for a model that is damaged.
    with errors.translated(errors.InputError, "it cannot be loaded ({})", Exception):
        signatures = saved_model.load(folder).signatures
    if SERVING_SIGNATURE not in signatures:
        raise errors.InputError(f"it has no signature {SERVING_SIGNATURE}")
    return [names.index(name) for name in classes]


@dataclasses.dataclass(frozen=True)
class Judging:
    """The model to beat (`write_champion`, empty for none) and the run's signature.

    Each is a string, or a parameter of a compiled package that its first step gives a value.
    """

    champion: "str | RuntimeParameter" = ""
    signature: "str | RuntimeParameter" = ""


class Lookup(settings.Section):
    """Where a run looks for the champion.

    `champion`: `registry`, `none`, or a model's folder or URI. `tracking`: MLflow's URI; `model_name`: the registered
    model whose alias `champion` counts. `settings`: see `signature`.
    """

    champion: str
    tracking: str
    model_name: str
    settings: str

    def to_beat(self, signature: str) -> str:
        """Returns the parameter `champion` of a run with this signature: `write_champion`, or empty for none.

        The run that made the champion is judged against the model that it was judged against then.

        Raises `InputError` if MLflow cannot be reached, or if the champion was never published: neither means that
        there is no champion.
        """
        if self.champion == settings.NONE:
            return ""
        if self.champion != settings.REGISTRY:
            return write_champion(self.champion)
        version = _champion(self.tracking, self.model_name)
        if version is None:
            return ""
        if version.tags.get(mlflow_runs.SIGNATURE) == signature:
            return str(version.tags.get(mlflow_runs.JUDGED_AGAINST, ""))
        return _written(version)


def current_champion(tracking: str, model_name: str, fingerprint: str) -> str:
    """Returns today's champion as `Lookup.to_beat` does; empty for none, and if it has this `fingerprint`.

    A run with the champion's signature can still have made another model, since code has changed or a lost cache made
    it train again. Then it must beat that champion.
    """
    version = _champion(tracking, model_name)
    return "" if version is None or version.tags.get(mlflow_runs.FINGERPRINT) == fingerprint else _written(version)


def _champion(tracking: str, model_name: str) -> Any:
    file = mlflow_store.sqlite_file(tracking)
    if file and not file.exists():
        return None
    with mlflow_store.session(tracking) as client:
        return mlflow_registry.find_champion(client, model_name)


def _written(version: Any) -> str:
    number = str(version.version)
    if mlflow_runs.PUBLISHED_AT not in version.tags:
        raise errors.InputError(
            f"version {number} of {version.name} is champion in MLflow but was never published, so there is nothing to "
            f"compare with; publish it (marco models promote {number}), or take the alias away from it"
        )
    return write_champion(_place(version), number)


def _place(version: Any) -> str:
    """Returns where the champion was first published, which stays the same when it is published again.

    If that was removed since, it is where the champion was published last, or else MLflow's own copy.
    """
    for tag in (mlflow_runs.PUBLISHED_AT, mlflow_runs.SERVED_AT):
        place = str(version.tags.get(tag, ""))
        try:
            if place and store.exists(f"{place}/{model_directory.MODEL_FILE}"):
                return place
        except (errors.InputError, errors.ClusterError) as error:  # The gate says so, where it matters.
            log.warning("Cannot look at the champion, %s: %s", place, error)
            return place
    return f"{mlflow_registry.REGISTERED}{version.name}/{version.version}"


def signature(settings_digest: str, fingerprint: str, initial: str, steps: str) -> str:
    """Returns a run's signature.

    `settings_digest`: the `digest` of what defines the training and of where its steps are kept. `fingerprint`: of the
    data; `initial`: of the weights that training begins from; `steps`: those of this run, empty for the recipe's.
    """
    fields = {"settings": settings_digest, "fingerprint": fingerprint, "initial": initial, "steps": steps}
    return settings.digest(fields)
