"""From a published model on `gs://` to an endpoint: what the component and `marco deploy push` both do."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.endpoint_pusher import golden, rollout, versions
from components.endpoint_pusher.golden import Golden, Image
from components.endpoint_pusher.options import Endpoint
from components.endpoint_pusher.state import State
from components.endpoint_pusher.versions import Release, Version
from components.pusher import bucket, storage
from components.pusher.names import RECORD
from components.vertex.api import Api
from marco_data.object_store import is_object
from marco_model.errors import InputError


class Deployment(NamedTuple):
    """What a push came to: the version, and the endpoint as it is afterwards."""

    version: Version
    endpoint: State

    def record(self) -> dict[str, Any]:
        """Returns it ready for JSON."""
        return {
            "deployed": True,
            "endpoint": self.endpoint.name,
            "model": self.version.model,
            "version": self.version.number,
            "fingerprint": self.version.fingerprint,
            "uri": self.version.uri,
            "traffic": {
                version: sum(one.share for one in self.endpoint.deployed if one.version == version)
                for version in dict.fromkeys(one.version for one in self.endpoint.deployed)
            },
        }


@contextlib.contextmanager
def fetched(uri: str) -> Iterator[tuple[Release, Path]]:
    """Yields a published model's release and a copy of its files, which is gone afterwards.

    `uri`: the folder of a SavedModel, or of numbered versions, of which the newest is taken. Raises `InputError` where
    it is not on `gs://`.
    """
    if not is_object(uri):
        raise InputError(f"{uri} is not on gs://, where Vertex AI takes models from; push it there first")
    with tempfile.TemporaryDirectory(prefix="marco-") as folder:
        model = bucket.download(uri, Path(folder))
        place = uri.rstrip("/")
        if place.rsplit("/", 1)[1] != model.name:
            place = f"{place}/{model.name}"
        note = json.loads((model / RECORD).read_text()) if (model / RECORD).is_file() else {}
        yield Release(place, storage.fingerprint(model), note.get("mlflow_run_id") or ""), model


def expected(model: Path, images: Sequence[Image]) -> list[Golden]:
    """Returns golden images with the answers of the model in a folder."""
    from marco_model.load import load

    return golden.answers(load(model), images)


def push(api: Api, options: Endpoint, model: str, uri: str, images: Callable[[], Sequence[Image]]) -> Deployment:
    """Deploys the model at `uri` as a version of `model`, a display name.

    Raises what `fetched`, `golden.answers` and `components.endpoint_pusher.rollout.push` do.
    """
    with fetched(uri) as (release, folder):
        answers = expected(folder, images())
    version = versions.ensure(api, options, model, release)
    return Deployment(version, rollout.push(api, options, version, answers))
