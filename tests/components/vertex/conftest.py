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
    """Scores that depend on the image and on the model, the same here and, unless it is broken, when deployed."""
    drawn = np.random.default_rng([*content, *uri.encode()]).random(4)
    return (drawn / drawn.sum()).astype(np.float32)


class World:
    """Everything that a test needs: `api`, `service`, and what the endpoint `marco` went through.

    `broken`: URIs of models, or containers, that answer wrongly once deployed, with an error where `failing`, with a
    400 where `refusing`. `moments`: the traffic of every endpoint by version, each time that something changed.
    `proven`: versions that have answered rightly.
    """

    def __init__(self, service):
        self.service = service
        self.said, self.moments, self.broken, self.failing, self.refusing = [], [], set(), set(), set()
        self.proven, self.images = set(), 2
        service.watch, service.score = self._watch, self._score
        self.api = Api(Vertex(project="crystals", location="europe-west4", api=service.url), PACE, self.said.append)

    def options(self, **changes):
        return Endpoint(**{"name": "marco", "traffic": (50, 100), **changes})

    def golden(self, uri):
        found = []
        for name in ("first", "second")[: self.images]:
            scores = scores_of(name.encode(), uri)
            found.append(golden.Golden(name, name.encode(), CLASSES[int(scores.argmax())], scores))
        return found

    def push(self, number, **changes):
        """Pushes the model at `gs://bucket/models/NUMBER` as a new command would."""
        options, uri = self.options(**changes), f"gs://bucket/models/{number}"
        version = endpoints.ensure_version(
            self.api, options, "marco", endpoints.Release(uri, f"{number}" * 64, f"run-{number}")
        )
        return rollout.push(self.api, options, version, self.golden(uri))

    def promote(self, number, **changes):
        """Promotes what is on trial as a new command would, with options of its own."""
        (version,) = [
            one
            for one in endpoints.list_versions(self.api, endpoints.find_model(self.api, "marco"))
            if one.number == str(number)
        ]
        return rollout.promote(self.api, self.options(**changes), version, self.golden(version.uri))

    def rollback(self, to=None, **changes):
        return rollout.rollback(self.api, self.options(**changes), to)

    def traffic(self, name="marco"):
        """Returns per cent by version."""
        endpoint = self.service.endpoints.get(name)
        if endpoint is None:
            return {}
        # Of the message itself: Google's wrapper around it takes a third of the time of all tests here.
        endpoint = endpoint._pb
        version = {one.id: one.model_version_id for one in endpoint.deployed_models}
        found = collections.Counter()
        for key, share in endpoint.traffic_split.items():
            found[version[key]] += share
        return dict(found)

    def machines(self):
        """Returns per cent by version and machine type."""
        endpoint = self.service.endpoints["marco"]
        return {
            (one.model_version_id, one.dedicated_resources.machine_spec.machine_type): endpoint.traffic_split.get(
                one.id, 0
            )
            for one in endpoint.deployed_models
        }

    def deployed(self, name="marco"):
        endpoint = self.service.endpoints.get(name)
        return [one.model_version_id for one in endpoint.deployed_models] if endpoint else []

    def final(self):
        """Returns all that a command is to come to, whatever happened on its way."""
        labels = dict(self.service.endpoints["marco"].labels)
        labels.pop("marco-serving", None)
        labels["marco-withdrawn"] = labels.get("marco-withdrawn", "").partition("-")[0]
        versions = [(one.version_id, one.artifact_uri) for one in self.service.models["marco"]]
        default = [one.version_id for one in self.service.models["marco"] if "default" in one.version_aliases]
        return self.machines(), self.deployed(), self.deployed("marco-check"), labels, versions, default

    @contextlib.contextmanager
    def again(self):
        """Has the service be afterwards as it was before."""
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
        if {uri, self.service.asked.container_spec.image_uri} & self.broken:
            scores = scores[::-1]
        else:
            self.proven.add(self.service.asked.version_id)
        return {"scores": [float(score) for score in scores], "class": CLASSES[int(scores.argmax())]}

    def unproven_traffic(self):
        """Returns the most that a version had of the endpoint's traffic at any moment before it was proven."""
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
def begun(*numbers):
    """Yields a world in which versions have been pushed; `again` resets it. Its requests need no socket."""
    from tests.fakes import vertex_api

    with stand_in() as service, vertex_api.without_sockets(service):
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
    with begun(1) as world:
        yield forget(world)


@pytest.fixture(scope="module")
def failed():
    """Version 2 serves after 1; 3 failed with traffic and was taken back by its push."""
    with begun(1, 2) as world:
        world.broken.add("gs://bucket/models/3")
        with pytest.raises(golden.GoldenFailed):
            world.push(3, check_endpoint=False)
        yield forget(world)


@pytest.fixture(scope="module")
def tried():
    """Version 2 serves after 1; 3 is on trial."""
    with begun(1, 2) as world:
        world.push(3, traffic=(50,))
        yield forget(world)
