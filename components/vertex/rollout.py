"""Push, promotion and rollback of a model's version on an endpoint.

Each step reads the state from the service, requests one change, and reads again, so that an interrupted command can be
repeated and continues where it stopped. The previous model serves until the new one is proven.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import marco_model
from components import published_models
from components.vertex import endpoints, golden
from components.vertex.api import Api
from components.vertex.endpoints import Deployed, Release, State, Version
from components.vertex.options import Endpoint
from marco_model import errors, model_directory, store


def push(api: Api, options: Endpoint, version: Version, images: Sequence[golden.Golden]) -> State:
    """Moves the endpoint's traffic to `version` in the steps of `options.traffic`, checking golden images at each.

    On an endpoint that serves nothing it gets all traffic at once. If `version` serves on another machine than
    `options` request, its new deployment takes over in the same way. Returns the resulting endpoint; if nothing is
    left to change, only leftovers of an earlier command are removed.

    Raises:
        InputError: another version or machine is on trial, or the service refuses. The command can be repeated.
        GoldenFailed: a wrong answer; the version is withdrawn and the previous one has all the traffic again.
        ClusterError: the service fails; the previous version still serves. The command can be repeated.
    """
    state = endpoints.ensure_endpoint(api, options.name)
    serving, current = state.serving, state.deployment_of(version.model, version.number, options.machine)
    if current and serving and state.labels.get(endpoints.SERVING) == current.id and current.share == 100:
        endpoints.make_default(api, version)
        return _clear(api, state.name, current, keep=options.keep_previous)
    endpoints.check_free(state, version.number, current)
    if options.check_endpoint and not (current and current.share):
        _prove(api, options, version, images)
    trial = endpoints.deploy(api, options, state.name, version)
    old = None if serving is None or serving.id == trial.id else serving
    shares = [share for share in options.traffic if share >= trial.share] if old else [100]
    try:
        for share in shares:
            split = {trial.id: share, old.id: 100 - share} if old and share < 100 else {trial.id: 100}
            # The label names the serving model even while the trial has more traffic. A new trial resets the rollback.
            labels = {endpoints.SERVING: old.id, endpoints.WITHDRAWN: None} if old else {}
            endpoints.change(api, state.name, split, labels)
            time.sleep(options.soak)
            golden.check(api, state.name, trial.id, share, images, options.tolerance)
    except golden.GoldenFailed as error:
        _withdraw(api, state.name, trial, old)
        kept = f"version {_describe(old, trial)} has all the traffic" if old else "the endpoint serves nothing"
        raise golden.GoldenFailed(f"version {_describe(trial, old)} is taken back, {kept}: {error}") from error
    if not shares or shares[-1] < 100:
        return endpoints.look(api, state.name)
    return _finish_promotion(api, options, state.name, trial, old, version)


def promote(api: Api, options: Endpoint, version: Version, images: Sequence[golden.Golden]) -> State:
    """Moves all the traffic to the version on trial, on its present machine, in the steps left; see `push`."""
    state = endpoints.ensure_endpoint(api, options.name)
    if trial := state.canary or state.serving:
        options = options.kept_on(trial.machine)
    steps = tuple(sorted({*options.traffic, 100}))
    return push(api, options.model_copy(update={"traffic": steps}), version, images)


def rollback(api: Api, options: Endpoint, to: str | None = None) -> tuple[State, str]:
    """Withdraws the version on trial or, without one, the version that serves; the previous one serves again.

    `to`: the version to restore; by default the previous one. It is not checked again, since it was proven when it
    served; a version that never served is refused. Returns the resulting endpoint and a description of what was done.
    Repeating the command changes nothing: a further rollback has to name its version. Automatic withdrawals by `push`
    do not count.

    Raises `InputError` if there is no version to go back to, `ClusterError` if the service fails.
    """
    state = endpoints.find_endpoint(api, options.name)
    if state is None:
        raise errors.InputError(f"there is no endpoint {options.name!r} in {api.place.project}; fix the name")
    serving, canary, before = state.serving, state.canary, state.labels.get(endpoints.PREVIOUS)
    if serving is None:
        raise errors.InputError(f"endpoint {options.name} serves nothing; push a model first")
    if canary and to in (None, serving.version):
        # An interrupted rollback may have left it: then the label already names the withdrawn version.
        labels = {} if state.withdrawn else {endpoints.WITHDRAWN: f"{canary.version}-{serving.id}"}
        _withdraw(api, state.name, canary, serving, labels)
        outcome = f"version {_describe(canary, serving)} taken back, {_describe(serving, canary)} serves"
        return _clear(api, state.name, serving, keep=True), outcome
    if to == serving.version or (to is None and state.withdrawn):
        further = f"; to go back further: --to {before}" if before else ""
        taken = state.withdrawn or "nothing"
        return state, f"version {serving.version} serves already, {taken} was taken back before{further}"
    if canary and canary.share and to == canary.version:
        raise errors.InputError(
            f"version {to} is on trial on endpoint {options.name}, with {canary.share} %; marco deploy promote it"
        )
    return _back(api, options, state, serving, to or before)


def _back(api: Api, options: Endpoint, state: State, serving: Deployed, before: str | None) -> tuple[State, str]:
    versions = endpoints.list_versions(api, f"{api.place.parent}/models/{serving.model}")
    known = {version.number: version for version in versions}
    if before not in known:
        raise errors.InputError(
            f"endpoint {options.name} cannot go back to version {before or 'before this one'}; "
            f"the registry has {', '.join(known)}"
        )
    # A promotion sets the endpoint's label, too.
    if not known[before].served and before != state.labels.get(endpoints.PREVIOUS):
        served = ", ".join(version.number for version in versions if version.served)
        raise errors.InputError(
            f"endpoint {options.name} cannot go back to version {before}, which never served; marco deploy push it, or "
            f"go back to one that did: {served or 'there is none'}"
        )
    old = state.deployment_of(known[before].model, before)
    if old is None:
        # The serving model runs on the machines that the traffic needs.
        options = options.kept_on(serving.machine)
        old = endpoints.deploy(api, options, state.name, known[before])
    # Before the traffic: once that has moved, a repeated command only cleans up.
    endpoints.make_default(api, known[before])
    labels = {endpoints.SERVING: old.id, endpoints.PREVIOUS: None, endpoints.WITHDRAWN: f"{serving.version}-{old.id}"}
    endpoints.change(api, state.name, {old.id: 100}, labels)
    return _clear(api, state.name, old), f"version {serving.version} taken back, {before} serves"


def _withdraw(
    api: Api, endpoint: str, trial: Deployed, old: Deployed | None, labels: Mapping[str, str | None] | None = None
) -> None:
    """Undeploys a version on trial, after the previous one, if any, got all the traffic."""
    if old:
        endpoints.change(api, endpoint, {old.id: 100}, {endpoints.SERVING: old.id, **(labels or {})})
    endpoints.undeploy(api, endpoint, trial.id, last=old is None)


def _prove(api: Api, options: Endpoint, version: Version, images: Sequence[golden.Golden]) -> None:
    """Checks a version with the golden images on a private endpoint, then undeploys it there."""
    place = endpoints.ensure_endpoint(api, options.name + endpoints.CHECK).name
    api.settle(place)
    state = endpoints.look(api, place)
    usable = state.deployment_of(version.model, version.number, options.machine)
    if usable is None or state.deployed != (usable,) or usable.share < 100:
        # Left by a killed command; of several, the last one may go with its traffic.
        for left in sorted(state.deployed, key=lambda left: left.share):
            endpoints.undeploy(api, place, left.id, last=True)
    trial = endpoints.deploy(api, options, place, version)
    try:
        golden.check(api, place, trial.id, 100, images, options.tolerance)
    except golden.GoldenFailed as error:
        with contextlib.suppress(errors.ClusterError, errors.InputError):
            endpoints.undeploy(api, place, trial.id, last=True)
        raise golden.GoldenFailed(f"version {version.number} was not let on {options.name}: {error}") from error
    endpoints.undeploy(api, place, trial.id, last=True)


def _finish_promotion(
    api: Api, options: Endpoint, endpoint: str, trial: Deployed, old: Deployed | None, version: Version
) -> State:
    """Records that a version with all the traffic is proven, and undeploys what it replaces."""
    labels: dict[str, str | None] = {endpoints.SERVING: trial.id, endpoints.WITHDRAWN: None}
    # A change of machine keeps the previous version.
    if not (old and (old.model, old.version) == (trial.model, trial.version)):
        labels[endpoints.PREVIOUS] = old.version if old and old.model == trial.model else None
    endpoints.change(api, endpoint, {trial.id: 100}, labels)
    endpoints.make_default(api, version)
    return _clear(api, endpoint, trial, old, keep=options.keep_previous)


def _clear(api: Api, endpoint: str, serving: Deployed, old: Deployed | None = None, *, keep: bool = False) -> State:
    """Undeploys the model's other versions and `old`; `keep`: except the previous version."""
    state = endpoints.look(api, endpoint)
    for other in state.deployed:
        kept = keep and other.version == state.labels.get(endpoints.PREVIOUS)
        ours = other.model == serving.model or (old is not None and other.id == old.id)
        if other.id != serving.id and ours and not kept:
            endpoints.undeploy(api, endpoint, other.id)
    return endpoints.look(api, endpoint)


def _describe(deployment: Deployed, other: Deployed | None) -> str:
    """Returns a deployed model's version, and its machine where `other` is the same version."""
    is_same = other and deployment.version == other.version
    return f"{deployment.version} on {deployment.machine}" if is_same else deployment.version


class Deployment(NamedTuple):
    """The result of a push: the version, and the resulting endpoint."""

    version: Version
    endpoint: State

    def record(self) -> dict[str, Any]:
        """Returns the fields of `deployment.json`."""
        traffic: dict[str, int] = {}
        for deployment in self.endpoint.deployed:
            traffic[deployment.version] = traffic.get(deployment.version, 0) + deployment.share
        return {
            "deployed": True,
            "endpoint": self.endpoint.name,
            "model": self.version.model,
            "version": self.version.number,
            "fingerprint": self.version.fingerprint,
            "uri": self.version.uri,
            "traffic": traffic,
        }


def fetch(uri: str, images: Callable[[], Sequence[golden.Image]]) -> tuple[Release, list[golden.Golden]]:
    """Returns a published model's release, and its answers to golden images.

    `uri`: the folder of a SavedModel, or of numbered versions, of which the newest is used. Raises `InputError` if it
    is not on `gs://`, and what `golden.answers` does.
    """
    if not store.is_object(uri):
        raise errors.InputError(f"{uri} is not on gs://, where Vertex AI takes models from; push it there first")
    with tempfile.TemporaryDirectory(prefix="marco-") as folder:
        model = published_models.download(uri, Path(folder))
        place = f"{uri.rstrip('/').removesuffix(f'/{model.name}')}/{model.name}"
        run = published_models.read_note(model).get("mlflow_run_id") or ""
        release = Release(place, model_directory.model_fingerprint(model), run)
        return release, golden.answers(marco_model.open_classifier(model), images())


def push_model(
    api: Api, options: Endpoint, model: str, uri: str, images: Callable[[], Sequence[golden.Image]]
) -> Deployment:
    """Deploys the model at `uri` as a version of `model`, a display name; raises what `fetch` and `push` do."""
    release, answers = fetch(uri, images)
    version = endpoints.ensure_version(api, options, model, release)
    return Deployment(version, push(api, options, version, answers))
