"""The stand-in for Vertex AI (tests/fakes/vertex_api.py) has no route that Google's client does not have."""

import importlib
import inspect
import re

import pytest
from google.api_core import path_template

from tests.fakes import vertex_api

SERVICES = ("endpoint", "job", "model", "pipeline", "prediction", "schedule")
PARENT = f"/v1/projects/{vertex_api.PROJECT}/locations/{vertex_api.LOCATION}"
CHOICES = {
    vertex_api._ID: ["7"],
    vertex_api._JOBS: list(vertex_api._KINDS),
    "([a-zA-Z]+/[^/]+)": ["endpoints/7", "models/7", "pipelineJobs/7"],
}


@pytest.fixture(scope="module")
def rules():
    """Pairs of verb and path template, of all methods of the client's services and of their long-running operations."""
    found = set()
    for service in SERVICES:
        module = importlib.import_module(f"google.cloud.aiplatform_v1.services.{service}_service.transports.rest_base")
        transport = getattr(module, f"_Base{service.capitalize()}ServiceRestTransport")
        for _, method in inspect.getmembers(transport, inspect.isclass):
            if hasattr(method, "_get_http_options"):
                found |= {(rule["method"].upper(), rule["uri"]) for rule in method._get_http_options()}
    return found


def requests(route):
    """Returns the requests, as verb and path, that a route stands for: each of its groups with each of its choices."""
    texts = [route]
    for group, choices in CHOICES.items():
        texts = [text.replace(group, choice) for text in texts for choice in choices]
    while group := re.search(r"\(([a-zA-Z|]+)\)", texts[0]):
        texts = [text.replace(group[0], choice) for text in texts for choice in group[1].split("|")]
    verbs, paths = zip(*(text.split(" ") for text in texts), strict=True)
    return [(verb, f"{PARENT}/{path}") for verb, path in zip(verbs, paths, strict=True)]


@pytest.mark.parametrize("route", [route for route, _ in vertex_api._ROUTES])
def test_a_route_is_one_of_googles_client(rules, route):
    for verb, path in requests(route):
        # A star stands for a method's name too.
        own = path.partition(":")[2]
        templates = [uri for method, uri in rules if method == verb and uri.rpartition("}")[2].partition(":")[2] == own]
        assert any(path_template.validate(uri, path) for uri in templates), f"{verb} {path}"


def test_a_route_that_the_client_lacks_would_be_found(rules):
    with pytest.raises(AssertionError, match="schedules/7:cancel"):
        test_a_route_is_one_of_googles_client(rules, f"POST schedules/{vertex_api._ID}:cancel")
