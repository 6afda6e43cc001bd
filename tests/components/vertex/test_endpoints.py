"""Names, labels and the state of an endpoint: plain functions, on any input."""

import re
import subprocess
import sys

from hypothesis import given, strategies as st

from components.vertex import endpoints
from components.vertex.endpoints import Deployed, State
from components.vertex.golden import tries_for
from components.vertex.options import Endpoint

BIG = Endpoint(
    name="marco",
    machine_type="n1-standard-8",
    accelerator="NVIDIA_TESLA_T4",
    accelerators=2,
    max_replicas=3,
    service_account="me@crystals",
)
PLACE = "projects/1/locations/europe-west4"


@given(st.text(max_size=200))
def test_ids_and_labels_are_valid_in_vertex_ai(text):
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", endpoints.identity(text))
    assert endpoints.identity(text) == endpoints.identity(text)
    assert re.fullmatch(r"[a-z0-9_-]{0,63}", endpoints.label(text))


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_other_names_have_other_ids(name, other):
    assert (endpoints.identity(name) == endpoints.identity(other)) == (name == other)


@given(st.text(), st.text())
def test_ids_of_deployed_models_are_ten_digits(version, etag):
    assert re.fullmatch(r"[1-9]\d{9}", endpoints.deployed_id(version, etag))


def test_a_model_with_traffic_is_asked_until_the_chance_of_a_miss_is_one_in_a_million():
    assert [tries_for(share) for share in (100, 50, 10)] == [1, 20, 132]
    for share in range(1, 100):
        assert (1 - share / 100) ** tries_for(share) <= 1.000001e-6 < (1 - share / 100) ** (tries_for(share) - 1)


def test_a_change_of_machine_leaves_the_older_deployment_of_a_version():
    for share, trial in ((0, None), (10, "a")):
        state = endpoint({endpoints.SERVING: "b"}, ("a", "1", share), ("b", "1", 100 - share))
        assert (state.canary.id if state.canary else None) == trial
        state = endpoint({endpoints.SERVING: "a"}, ("a", "1", 100 - share), ("b", "1", share))
        assert state.canary.id == "b"


def endpoint(labels, *deployed):
    models = tuple(
        Deployed(key, "marco", version, share, f"2026-01-0{number}")
        for number, (key, version, share) in enumerate(deployed, 1)
    )
    return State("endpoints/marco", "marco", "1", labels, models)


def test_the_state_names_the_serving_model_and_the_one_on_trial():
    serving, previous = endpoints.SERVING, endpoints.PREVIOUS
    cases = [
        (endpoint({}), None, None),
        (endpoint({}, ("a", "1", 100)), "a", None),
        (endpoint({}, ("a", "1", 0)), None, "a"),
        (endpoint({serving: "a"}, ("a", "1", 10), ("b", "2", 90)), "a", "b"),
        (endpoint({serving: "a"}, ("a", "1", 0), ("b", "2", 100)), "a", "b"),
        (endpoint({serving: "b", previous: "1"}, ("a", "1", 0), ("b", "2", 100)), "b", None),
        (endpoint({serving: "b", previous: "1"}, ("a", "1", 10), ("b", "2", 90)), "b", "a"),
        (endpoint({serving: "gone"}, ("a", "1", 30), ("b", "2", 70)), "b", "a"),
    ]
    for state, serves, trial in cases:
        assert (state.serving.id if state.serving else None, state.canary.id if state.canary else None) == (
            serves,
            trial,
        )


@given(st.lists(st.integers(0, 100), max_size=5))
def test_the_split_names_only_models_with_traffic(shares):
    state = endpoint({}, *((str(number), str(number), share) for number, share in enumerate(shares)))
    assert all(state.split().values()) and sum(state.split().values()) == sum(shares)


def test_the_commands_do_not_import_tfx():
    program = (
        "import sys, pipelines.cli, components.vertex.batch, pipelines.commands.deploy, "
        "components.vertex.rollout, components.vertex.golden, pipelines.vertex_backend, "
        "pipelines.commands.run, pipelines.configuration; "
        "print([name for name in ('tfx', 'tensorflow', 'kfp', 'google.cloud.aiplatform_v1') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_message_is_read():
    from google.cloud.aiplatform_v1 import types

    message = types.Endpoint(
        name=f"{PLACE}/endpoints/2",
        etag="3",
        deployed_models=[
            {"id": "4", "model": f"{PLACE}/models/marco", "model_version_id": "5"},
            {
                "id": "6",
                "model": f"{PLACE}/models/marco",
                "model_version_id": "5",
                **BIG.machine.message(),
            },
        ],
        traffic_split={"4": 100},
    )
    first, other = endpoints.read_state(message).deployed
    assert (first.id, first.model, first.version, first.share) == ("4", "marco", "5", 100)
    assert BIG.kept_on(first.machine) == BIG
    assert other.machine == BIG.machine
    assert str(other.machine) == "n1-standard-8, 2 NVIDIA_TESLA_T4, 1 to 3 replicas, as me@crystals"
    assert Endpoint(name="marco").kept_on(other.machine) == BIG
