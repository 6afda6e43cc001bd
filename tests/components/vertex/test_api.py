"""Requests to Vertex AI (components/vertex/api.py), on the stand-in; what deployments ask is in test_rollout.py."""

from components.vertex import api as vertex_api
from components.vertex.options import Vertex
from tests.fakes import vertex_api as fake

RESOURCE = f"projects/{fake.NUMBER}/locations/{fake.LOCATION}/endpoints/1"


def test_operations_on_every_page_are_waited_for():
    with fake.running() as service:
        pace = vertex_api.Pace(look=0.0)
        api = vertex_api.Api(Vertex(project=fake.PROJECT, location=fake.LOCATION, api=service.url), pace, print)
        for number in range(2 * fake.PAGE + 1):
            name = f"{RESOURCE}/operations/{number}"
            service.operations[name] = {"left": 0, "effect": lambda: None, "error": None}
        service.operations[name]["left"] = 9
        api.settle(RESOURCE)
        assert not service.operations[name]["left"]
