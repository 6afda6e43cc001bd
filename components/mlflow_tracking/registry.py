"""Registered models: every trained model is a version; aliases say which one serves.

`champion`: the newest version that was blessed and published (`champions` has those before it).
`challenger`: the newest version that was not, with the reasons in its run. A version is found again by the hash of its
files, so that a step that runs twice registers once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.mlflow_tracking import champions, connection
from components.mlflow_tracking.names import (
    CHALLENGER,
    CHAMPION,
    COMMIT,
    DATA,
    EVALUATION,
    FINGERPRINT,
    PREVIOUS_CHAMPION,
    PUBLISHED_AT,
    SERVED_AT,
)
from components.mlflow_tracking.tracking import Run


def register(
    run: Run,
    name: str,
    saved_model: Path,
    *,
    classes: Sequence[str],
    fingerprint: str,
    published_at: str | None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Registers a SavedModel under `name`, as a product of `run`, and returns the version.

    `fingerprint`: hash of its files. `published_at`: where it serves from, which makes it champion; None if it was not
    blessed, which makes it challenger. `tags`: where it comes from, kept with those of the run that say so too.

    Raises:
        InputError: MLflow cannot be reached.
    """
    client = connection.client(run.tracking_uri)
    with connection.reaching(run.tracking_uri):
        version = _registered(client, name, fingerprint)
        if version is None:
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            with _active(run):
                logged = _log_model(saved_model, classes)
                created = client.create_model_version(
                    name, logged.model_uri, run.run_id, tags={FINGERPRINT: fingerprint}, model_id=logged.model_id
                )
            version = str(created.version)
        given = {**_lineage(client, run), **(tags or {}), "blessed": str(published_at is not None).lower()}
        for tag, value in given.items():
            client.set_model_version_tag(name, version, tag, value)
        aliases = {alias: str(holder) for alias, holder in client.get_registered_model(name).aliases.items()}
        if published_at is not None:
            crown(client, name, version, published_at)
        elif aliases.get(CHAMPION) != version:  # It still serves, whatever a later, stricter judge says of it.
            client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def _registered(client: Any, name: str, fingerprint: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{FINGERPRINT}` = '{fingerprint}'")
    return str(max(int(version.version) for version in found)) if found else None


def _lineage(client: Any, run: Run) -> dict[str, str]:
    tags = client.get_run(run.run_id).data.tags
    return {name: tags[name] for name in (DATA, COMMIT, EVALUATION) if name in tags}


def crown(client: Any, name: str, version: str, place: str, *, back: bool = False) -> None:
    """Makes a version that is published at `place` the champion; `back`: in the place of one that is taken back."""
    if PUBLISHED_AT not in client.get_model_version(name, version).tags:
        client.set_model_version_tag(name, version, PUBLISHED_AT, place)
    client.set_model_version_tag(name, version, SERVED_AT, place)
    before = champions.crowned(client, name, version, back=back)[-2:-1]
    client.set_model_version_tag(name, version, PREVIOUS_CHAMPION, "".join(before))
    if str(dict(client.get_registered_model(name).aliases).get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _log_model(saved_model: Path, classes: Sequence[str]) -> Any:
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image_bytes")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "class"),
                *(ColSpec(DataType.float, one) for one in classes),
                *(ColSpec(DataType.float, f"probability_{one}") for one in classes),
                ColSpec(DataType.string, "version"),
            ]
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "classes.json"
        names.write_text(json.dumps(list(classes)))
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("scoring_model.py")),
            artifacts={"model": str(saved_model), "classes": str(names)},
            signature=signature,
            input_example=pd.DataFrame({"image_bytes": [example_image()]}),
            pip_requirements=[f"{one}=={importlib.metadata.version(one)}" for one in ("mlflow", "tensorflow", "numpy")],
        )


def example_image() -> bytes:
    """Returns a JPEG for people to try a model with: a grey disc on a lighter ground, 640×480."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (640, 480), (200, 200, 200))
    ImageDraw.Draw(image).ellipse((140, 60, 500, 420), fill=(150, 150, 150))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@contextlib.contextmanager
def _active(run: Run) -> Iterator[None]:
    """Makes `run` MLflow's active run, as its model logging wants it, and puts everything back."""
    import mlflow

    tracking_uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.tracking_uri)
    try:
        with mlflow.start_run(run_id=run.run_id):
            yield
    finally:
        mlflow.set_tracking_uri(tracking_uri)
