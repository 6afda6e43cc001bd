"""A version's way to all of an endpoint's traffic, and the way back.

Each step reads from the service how things are, asks for one change, and reads again, so that a command that was cut
off goes on where it was when it is given again. The model that served before serves until the new one is proven.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components import bucket_models
from components.vertex import endpoints, golden
from components.vertex.api import Api
from components.vertex.endpoints import Deployed, Release, State, Version
from components.vertex.golden import Golden, GoldenFailed, Image
from components.vertex.options import Endpoint, kept_machine, wanted_machine
from marco_model.errors import ClusterError, InputError
from marco_model.model_directory import PUSH_RECORD, model_fingerprint
from marco_model.store import is_object


def push(api: Api, options: Endpoint, version: Version, images: Sequence[Golden]) -> State:
    """Gives `version` the endpoint's traffic, in the steps of `options.traffic`, proving it by golden images at each.

    On an endpoint that serves nothing it gets all at once. Where `version` serves on another machine than `options` ask
    for, its new deployment takes over in the same way. Returns the endpoint as it is afterwards; where all is so
    already, nothing is done but to take away what an earlier command left.

    Raises:
        InputError: another version or machine is on trial there, or the service refuses; given again, it goes on.
        GoldenFailed: it does not answer as it should; it is taken back, and what served before has all the traffic.
        ClusterError: the service fails; given again, the command goes on. What served before still does.
    """
    here = endpoints.ensure_endpoint(api, options.name)
    serving, there = here.serving, here.of(version.model, version.number, wanted_machine(options))
    if there and serving and here.labels.get(endpoints.SERVING) == there.id and there.share == 100:
        return _settled(api, options, here.name, there, version)
    endpoints.check_free(here, version.number, there)
    if options.check_endpoint and not (there and there.share):
        _prove(api, options, version, images)
    one = endpoints.deploy(api, options, here.name, version, _title(version))
    old = None if serving is None or serving.id == one.id else serving
    shares = [share for share in options.traffic if share >= one.share] if old else [100]
    try:
        for share in shares:
            _give(api, here.name, one, share, old)
            time.sleep(options.soak)
            golden.check(api, here.name, one.id, share, images, options.tolerance)
    except GoldenFailed as error:
        _withdraw(api, here.name, one, old)
        kept = f"version {_told(old, one)} has all the traffic" if old else "the endpoint serves nothing"
        raise GoldenFailed(f"version {_told(one, old)} is taken back, {kept}: {error}") from error
    if not shares or shares[-1] < 100:
        return endpoints.look(api, here.name)
    return _promoted(api, options, here.name, one, old, version)


def promote(api: Api, options: Endpoint, version: Version, images: Sequence[Golden]) -> State:
    """Gives the version on trial, on the machine that it has, all the traffic in the steps left; see `push`."""
    here = endpoints.ensure_endpoint(api, options.name)
    if one := here.canary or here.serving:
        options = kept_machine(options, one.machine)
    steps = tuple(sorted({*options.traffic, 100}))
    return push(api, dataclasses.replace(options, traffic=steps), version, images)


def rollback(api: Api, options: Endpoint, to: str | None = None) -> tuple[State, str]:
    """Takes the version on trial back or, where there is none, the one that serves: the one before it serves again.

    `to`: the version that is to serve; by default the one that did before. A version comes back unchecked: it was
    proven when it served; one that never did is refused. Returns the endpoint as it is afterwards and, in words, what
    was done. The same command again changes nothing: after one way back, a further one has to be named. What a push
    took back by itself is none.

    Raises `InputError` where there is no way back, `ClusterError` where the service fails; given again, it goes on.
    """
    here = endpoints.find_endpoint(api, options.name)
    if here is None:
        raise InputError(f"there is no endpoint {options.name!r} in {api.place.project}; mend the name")
    serving, canary, before = here.serving, here.canary, here.labels.get(endpoints.PREVIOUS)
    if serving is None:
        raise InputError(f"endpoint {options.name} serves nothing; push a model first")
    if canary and to in (None, serving.version):
        # It may be what a way back, cut off, has left: then the label says already what was taken back.
        labels = {} if here.withdrawn else {endpoints.WITHDRAWN: f"{canary.version}-{serving.id}"}
        _withdraw(api, here.name, canary, serving, labels)
        told = f"version {_told(canary, serving)} taken back, {_told(serving, canary)} serves"
        return _clear(api, here.name, serving, keep=True), told
    if to == serving.version or (to is None and here.withdrawn):
        further = f"; to go back further: --to {before}" if before else ""
        taken = here.withdrawn or "nothing"
        return here, f"version {serving.version} serves already, {taken} was taken back before{further}"
    if canary and canary.share and to == canary.version:
        raise InputError(
            f"version {to} is on trial on endpoint {options.name}, with {canary.share} %; marco deploy promote it"
        )
    return _back(api, options, here, serving, to or before)


def _back(api: Api, options: Endpoint, here: State, serving: Deployed, before: str | None) -> tuple[State, str]:
    known = {one.number: one for one in endpoints.list_versions(api, f"{api.place.parent}/models/{serving.model}")}
    if before not in known:
        raise InputError(
            f"endpoint {options.name} cannot go back to version {before or 'before this one'}; "
            f"the registry has {', '.join(known)}"
        )
    # The endpoint's own label is given by a promotion, too.
    if not known[before].served and before != here.labels.get(endpoints.PREVIOUS):
        told = ", ".join(one.number for one in known.values() if one.served)
        raise InputError(
            f"endpoint {options.name} cannot go back to version {before}, which never served; marco deploy push it, or "
            f"go back to one that did: {told or 'there is none'}"
        )
    old = here.of(known[before].model, before)
    if old is None:
        # What served has the machines that the traffic needs; the command need not know them.
        options = kept_machine(options, serving.machine)
        old = endpoints.deploy(api, options, here.name, known[before], _title(known[before]))
    # Before the traffic: once that is moved, the command given again has nothing left to do but to clear.
    endpoints.make_default(api, known[before])
    labels = {endpoints.SERVING: old.id, endpoints.PREVIOUS: None, endpoints.WITHDRAWN: f"{serving.version}-{old.id}"}
    endpoints.change(api, here.name, {old.id: 100}, labels)
    return _clear(api, here.name, old), f"version {serving.version} taken back, {before} serves"


def _withdraw(
    api: Api, endpoint: str, one: Deployed, old: Deployed | None, labels: Mapping[str, str | None] | None = None
) -> None:
    """Takes a version on trial away; what served before, if anything, has all the traffic first."""
    if old:
        endpoints.change(api, endpoint, {old.id: 100}, {endpoints.SERVING: old.id, **(labels or {})})
    endpoints.undeploy(api, endpoint, one.id, last=old is None)


def _prove(api: Api, options: Endpoint, version: Version, images: Sequence[Golden]) -> None:
    """Asks a version for the golden images on an endpoint that nobody else asks, and takes it away there again."""
    place = endpoints.ensure_endpoint(api, options.name + endpoints.CHECK).name
    api.settle(place)
    here = endpoints.look(api, place)
    usable = here.of(version.model, version.number, wanted_machine(options))
    if usable is None or here.deployed != (usable,) or usable.share < 100:
        # Left by a command that was killed; of several, the last may go with its traffic.
        for left in sorted(here.deployed, key=lambda left: left.share):
            endpoints.undeploy(api, place, left.id, last=True)
    one = endpoints.deploy(api, options, place, version, _title(version))
    try:
        golden.check(api, place, one.id, 100, images, options.tolerance)
    except GoldenFailed as error:
        with contextlib.suppress(ClusterError, InputError):
            endpoints.undeploy(api, place, one.id, last=True)
        raise GoldenFailed(f"version {version.number} was not let on {options.name}: {error}") from error
    endpoints.undeploy(api, place, one.id, last=True)


def _give(api: Api, endpoint: str, one: Deployed, share: int, old: Deployed | None) -> None:
    split = {one.id: share, old.id: 100 - share} if old and share < 100 else {one.id: 100}
    # The label holds who serves while the other one has more traffic. With a new trial, ways back begin anew.
    endpoints.change(api, endpoint, split, {endpoints.SERVING: old.id, endpoints.WITHDRAWN: None} if old else {})


def _promoted(
    api: Api, options: Endpoint, endpoint: str, one: Deployed, old: Deployed | None, version: Version
) -> State:
    """Notes that a version with all the traffic is proven, and takes away what it replaces."""
    labels: dict[str, str | None] = {endpoints.SERVING: one.id, endpoints.WITHDRAWN: None}
    # A change of machine leaves the way back where it led.
    if not (old and (old.model, old.version) == (one.model, one.version)):
        labels[endpoints.PREVIOUS] = old.version if old and old.model == one.model else None
    endpoints.change(api, endpoint, {one.id: 100}, labels)
    return _settled(api, options, endpoint, one, version, old)


def _settled(
    api: Api, options: Endpoint, endpoint: str, serving: Deployed, version: Version, old: Deployed | None = None
) -> State:
    endpoints.make_default(api, version)
    return _clear(api, endpoint, serving, old, keep=options.keep_previous)


def _clear(api: Api, endpoint: str, serving: Deployed, old: Deployed | None = None, *, keep: bool = False) -> State:
    """Takes away the model's other versions and `old`; `keep`: but for the version before."""
    here = endpoints.look(api, endpoint)
    for other in here.deployed:
        kept = keep and other.version == here.labels.get(endpoints.PREVIOUS)
        ours = other.model == serving.model or (old is not None and other.id == old.id)
        if other.id != serving.id and ours and not kept:
            endpoints.undeploy(api, endpoint, other.id)
    return endpoints.look(api, endpoint)


def _told(one: Deployed, other: Deployed | None) -> str:
    """Returns a deployed model's version, and its machine where `other` is the same version."""
    return f"{one.version} on {one.machine}" if other and one.version == other.version else one.version


def _title(version: Version) -> str:
    return f"{endpoints.last(version.model)}-{version.number} {version.fingerprint[:12]}"


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
        model = bucket_models.download(uri, Path(folder))
        place = uri.rstrip("/")
        if place.rsplit("/", 1)[1] != model.name:
            place = f"{place}/{model.name}"
        note = json.loads((model / PUSH_RECORD).read_text()) if (model / PUSH_RECORD).is_file() else {}
        yield Release(place, model_fingerprint(model), note.get("mlflow_run_id") or ""), model


def expected(model: Path, images: Sequence[Image]) -> list[Golden]:
    """Returns golden images with the answers of the model in a folder."""
    from marco_model.load import load

    return golden.answers(load(model), images)


def push_model(api: Api, options: Endpoint, model: str, uri: str, images: Callable[[], Sequence[Image]]) -> Deployment:
    """Deploys the model at `uri` as a version of `model`, a display name.

    Raises what `fetched`, `golden.answers` and `components.vertex.rollout.push` do.
    """
    with fetched(uri) as (release, folder):
        answers = expected(folder, images())
    version = endpoints.ensure_version(api, options, model, release)
    return Deployment(version, push(api, options, version, answers))
