"""A stand-in for Vertex AI that watches over an endpoint, and small models for it."""

import collections
import contextlib
import copy

import numpy as np
import pytest

from components.vertex import endpoints, golden, rollout
from components.vertex.api import Api, Pace
from components.vertex.options import Endpoint, Vertex

CLASSES = ("Clear", "Crystals", "Other", "Precipitate")
PACE = Pace(tries=4, first=1e-4, longest=1e-4, look=0, operation=10)


def scores_of(content, uri):
    """Returns scores that depend on image and model; a deployed model has the same unless it is broken."""
    drawn = np.random.default_rng([*content, *uri.encode()]).random(4)
    return (drawn / drawn.sum()).astype(np.float32)


class World:
    """All that a test needs: `api`, `service`, and the history of the endpoint `marco`.

    `broken`: URIs of models, or containers, that give wrong scores once deployed; those in `failing` fail with an
    error, those in `refusing` with a 400. `moments`: the traffic of every endpoint by version, each time that something
    changed. `proven`: versions that have given correct scores.
    """

    def __init__(self, service):
        self.service = service
        self.messages, self.moments, self.broken, self.failing, self.refusing = [], [], set(), set(), set()
        self.proven, self.images = set(), 2
        service.watch, service.score = self._watch, self._score
        self.api = Api(Vertex(project="crystals", location="europe-west4", api=service.url), PACE, self.messages.append)

    def options(self, **changes):
        return Endpoint(**{"name": "marco", "traffic": (50, 100), **changes})

    def golden(self, uri):
        images = []
        for name in ("first", "second")[: self.images]:
            scores = scores_of(name.encode(), uri)
            images.append(golden.Golden(name, name.encode(), CLASSES[int(scores.argmax())], scores))
        return images

    def push(self, number, **changes):
        """Pushes the model at `gs://bucket/models/NUMBER` as a new command would."""
        options, uri = self.options(**changes), f"gs://bucket/models/{number}"
        version = endpoints.ensure_version(
            self.api, options, "marco", endpoints.Release(uri, f"{number}" * 64, f"run-{number}")
        )
        return rollout.push(self.api, options, version, self.golden(uri))

    def promote(self, number, **changes):
        """Promotes the version on trial as a new command with its own options would."""
        versions = endpoints.list_versions(self.api, endpoints.find_model(self.api, "marco"))
        (version,) = [version for version in versions if version.number == str(number)]
        return rollout.promote(self.api, self.options(**changes), version, self.golden(version.uri))

    def rollback(self, to=None, **changes):
        return rollout.rollback(self.api, self.options(**changes), to)

    def traffic(self, name="marco"):
        """Returns the percentage of the traffic by version."""
        endpoint = self.service.endpoints.get(name)
        if endpoint is None:
            return {}
        # The message itself, since Google's wrapper around it takes a third of the time of these tests.
        endpoint = endpoint._pb
        versions = {model.id: model.model_version_id for model in endpoint.deployed_models}
        shares = collections.Counter()
        for key, share in endpoint.traffic_split.items():
            shares[versions[key]] += share
        return dict(shares)

    def machines(self):
        """Returns the percentage of the traffic by version and machine type."""
        endpoint = self.service.endpoints["marco"]
        return {
            (model.model_version_id, model.dedicated_resources.machine_spec.machine_type): endpoint.traffic_split.get(
                model.id, 0
            )
            for model in endpoint.deployed_models
        }

    def deployed(self, name="marco"):
        endpoint = self.service.endpoints.get(name)
        return [model.model_version_id for model in endpoint.deployed_models] if endpoint else []

    def final(self):
        """Returns the state that a command must reach, whatever failed on its way."""
        labels = dict(self.service.endpoints["marco"].labels)
        labels.pop("marco-serving", None)
        labels["marco-withdrawn"] = labels.get("marco-withdrawn", "").partition("-")[0]
        versions = [(version.version_id, version.artifact_uri) for version in self.service.models["marco"]]
        default = [
            version.version_id for version in self.service.models["marco"] if "default" in version.version_aliases
        ]
        return self.machines(), self.deployed(), self.deployed("marco-check"), labels, versions, default

    @contextlib.contextmanager
    def restored(self):
        """Restores the state of the service at the end."""
        kept = copy.deepcopy((self.service.models, self.service.endpoints, self.proven))
        try:
            yield
        finally:
            self.service.models, self.service.endpoints, self.proven = kept
            self.service.operations, self.service.requests, self.moments = {}, [], []
            self.service.turns = {}
            self.service.fault = lambda index, method, path: None

    def _watch(self):
        for name in self.service.endpoints:
            split = self.service.endpoints[name]._pb.traffic_split
            assert sum(split.values()) == (100 if split else 0)
            moment = (name, self.traffic(name), frozenset(self.proven))
            if not self.moments or self.moments[-1] != moment:
                self.moments.append(moment)

    def _score(self, content, uri):
        if uri in self.failing:
            raise ArithmeticError("out of memory")
        if uri in self.refusing:
            raise ValueError("no such input")
        scores = scores_of(content, uri)
        if {uri, self.service.scoring.container_spec.image_uri} & self.broken:
            scores = scores[::-1]
        else:
            self.proven.add(self.service.scoring.version_id)
        return {"scores": [float(score) for score in scores], "class": CLASSES[int(scores.argmax())]}

    def unproven_traffic(self):
        """Returns the largest share of the endpoint's traffic that a version had before it was proven."""
        return max(
            (share for name, split, proven in self.moments if name == "marco" for version, share in split.items()
             if version not in proven), default=0)  # fmt: skip


def stand_in():
    from tests.fakes import vertex_api

    return vertex_api.running()


@pytest.fixture
def world():
    with stand_in() as service:
        yield World(service)


@contextlib.contextmanager
def world_with(*numbers):
    """Yields a world in which versions have been pushed; `restored` resets it. Its requests use no sockets."""
    from tests.fakes import http_server

    with stand_in() as service, http_server.without_sockets(service, service.url):
        world = World(service)
        world.images = 1
        for number in numbers:
            world.push(number)
        yield world


def forget(world):
    world.service.operations, world.service.requests, world.moments = {}, [], []
    return world


@pytest.fixture(scope="module")
def served():
    """Version 1 serves."""
    with world_with(1) as world:
        yield forget(world)


@pytest.fixture(scope="module")
def failed():
    """Version 2 serves after 1; 3 failed with traffic and was taken back by its push."""
    with world_with(1, 2) as world:
        world.broken.add("gs://bucket/models/3")
        with pytest.raises(golden.GoldenFailed):
            world.push(3, check_endpoint=False)
        yield forget(world)


@pytest.fixture(scope="module")
def tried():
    """Version 2 serves after 1; 3 is on trial."""
    with world_with(1, 2) as world:
        world.push(3, traffic=(50,))
        yield forget(world)
