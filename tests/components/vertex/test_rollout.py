"""Rollout of versions to an endpoint and their rollback, against a stand-in for Vertex AI's REST API."""

import pytest

from components.vertex import endpoints
from components.vertex.api import Failed
from components.vertex.golden import GoldenFailed
from marco_model.errors import ClusterError, InputError

V1, V2, V3 = "1", "2", "3"


def test_the_first_deployment_gets_all_traffic_after_the_check(world):
    world.push(1)
    assert world.traffic() == {V1: 100}
    assert world.unproven_traffic() == 0
    assert [name for name, *_ in world.moments if world.deployed(name)] and world.deployed("marco-check") == []
    (version,) = world.service.models["marco"]
    assert version.artifact_uri == "gs://bucket/models/1"
    assert version.labels["marco-fingerprint"] == "1" * 32
    assert version.labels["marco-run"] == "run-1"


def test_a_new_version_takes_over_in_steps_and_the_old_one_is_undeployed(world):
    world.push(1)
    world.moments.clear()
    world.push(2, traffic=(10, 50, 100))
    seen = [split for name, split, _ in world.moments if name == "marco"]
    steps = [split for number, split in enumerate(seen) if split != seen[number - 1] or not number]
    assert steps == [{V1: 100}, {V1: 90, V2: 10}, {V1: 50, V2: 50}, {V2: 100}]
    assert world.unproven_traffic() == 0
    assert world.deployed() == [V2]
    assert len(world.service.models) == 1
    assert [version.version_id for version in world.service.models["marco"]] == [V1, V2]
    aliases = [list(version.version_aliases) for version in world.service.models["marco"]]
    assert aliases == [["served-1"], ["default", "served-2"]]


@pytest.mark.parametrize("check_endpoint", [True, False])
@pytest.mark.parametrize("how", ["broken", "failing", "refusing"])
def test_a_failing_golden_check_leaves_the_old_version_serving(world, check_endpoint, how):
    world.push(1)
    getattr(world, how).add("gs://bucket/models/2")
    world.moments.clear()
    for _ in range(2):
        with pytest.raises(GoldenFailed, match=r"version 2 .*golden image first"):
            world.push(2, check_endpoint=check_endpoint)
        assert world.traffic() == {V1: 100}
        assert world.deployed() == [V1]
        assert world.deployed("marco-check") == []
    shares = [split.get(V1, 0) for name, split, _ in world.moments if name == "marco"]
    assert min(shares) == (100 if check_endpoint else 50)
    getattr(world, how).clear()
    world.push(2, check_endpoint=check_endpoint)
    assert world.traffic() == {V2: 100}


@pytest.mark.parametrize("check_endpoint", [True, False])
def test_a_refusal_of_the_old_version_is_not_blamed_on_the_new_one(world, check_endpoint):
    world.push(1)
    world.refusing.add("gs://bucket/models/1")
    world.push(2, traffic=(10, 50, 100), check_endpoint=check_endpoint)
    assert world.traffic() == {V2: 100}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("check_endpoint", [True, False])
def test_a_missing_permission_to_predict_takes_nothing_back(world, status, check_endpoint):
    world.push(1)
    world.service.fault = lambda index, method, path: (status, "before") if path.endswith(":predict") else None
    with pytest.raises(InputError, match=r"to predict: .*(log in by|enable the Vertex AI API)"):
        world.push(2, check_endpoint=check_endpoint)
    assert world.traffic() == ({V1: 100} if check_endpoint else {V1: 50, V2: 50})
    world.service.fault = lambda index, method, path: None
    world.push(2, check_endpoint=check_endpoint)
    assert world.traffic() == {V2: 100} and world.deployed("marco-check") == []


def test_a_first_model_that_fails_is_undeployed(world):
    world.broken.add("gs://bucket/models/1")
    with pytest.raises(GoldenFailed, match="the endpoint serves nothing"):
        world.push(1, check_endpoint=False)
    assert world.traffic() == {} and world.deployed() == []


def test_a_container_that_does_not_start_changes_nothing(world):
    world.push(1)
    world.service.unstartable.add("gs://bucket/models/2")
    with pytest.raises(Failed, match="exited unexpectedly"):
        world.push(2)
    assert world.traffic() == {V1: 100} and world.deployed() == [V1] and world.deployed("marco-check") == []


OTHER = {"container": "europe-west4-docker.pkg.dev/p/marco:2", "server": "marco"}


def test_another_container_is_another_version(world):
    world.push(1)
    world.broken.add(OTHER["container"])
    with pytest.raises(GoldenFailed, match="version 2 is taken back, version 1 has all the traffic"):
        world.push(1, check_endpoint=False, **OTHER)
    assert world.traffic() == {V1: 100}
    world.broken.clear()
    world.moments.clear()
    world.push(1, **OTHER)
    assert {V1: 50, V2: 50} in [split for name, split, _ in world.moments if name == "marco"]
    assert world.traffic() == {V2: 100} and world.deployed() == [V2]
    first, second = world.service.models["marco"]
    assert second.container_spec.image_uri == OTHER["container"]
    assert list(second.container_spec.command) == ["marco", "serve"]
    assert first.labels["marco-fingerprint"] == second.labels["marco-fingerprint"]
    world.push(1, container=OTHER["container"])
    world.push(1, **OTHER)
    assert len(world.service.models["marco"]) == 3 and world.traffic() == {V2: 100}
    assert world.rollback(to=V1)[1] == "version 2 taken back, 1 serves"


def test_the_same_files_at_another_place_are_another_version(world):
    for place, number in (("old", V1), ("new", V2), ("new/", V2), ("old", V1)):
        release = endpoints.Release(f"gs://{place}", "a" * 64)
        assert endpoints.ensure_version(world.api, world.options(), "marco", release).number == number


BIG = {"machine_type": "n1-standard-8"}
SMALL = {"machine_type": "n2-standard-4"}


@pytest.mark.parametrize(
    "changes",
    [
        {"accelerator": "NVIDIA_TESLA_T4", "accelerators": 1},
        {"min_replicas": 2, "max_replicas": 3},
        {"service_account": "server@crystals.iam.gserviceaccount.com"},
        BIG,
    ],
)
def test_another_machine_takes_over_like_a_version_and_the_old_one_is_undeployed(world, changes):
    world.push(1)
    world.push(2)
    (before,) = world.service.endpoints["marco"].deployed_models
    seen = []
    world.service.watch = lambda: seen.append(dict(world.service.endpoints["marco"].traffic_split))
    world.push(2, **changes)
    (after,) = world.service.endpoints["marco"].deployed_models
    assert {before.id: 50, after.id: 50} in seen
    assert all(sum(split.values()) == 100 for split in seen)
    assert world.traffic() == {V2: 100} and len(world.service.models["marco"]) == 2
    resources, machine = after.dedicated_resources, after.dedicated_resources.machine_spec
    got = {
        "accelerator": machine.accelerator_type.name,
        "accelerators": machine.accelerator_count,
        "min_replicas": resources.min_replica_count,
        "max_replicas": resources.max_replica_count,
        "service_account": after.service_account,
        "machine_type": machine.machine_type,
    }
    assert {name: got[name] for name in changes} == changes
    requests = len(world.service.requests)
    world.push(2, **changes)
    assert all(request.startswith("GET") for request in world.service.requests[requests:])
    assert world.rollback()[1] == "version 2 taken back, 1 serves"
    (back,) = world.service.endpoints["marco"].deployed_models
    assert back.dedicated_resources == resources


def test_a_machine_on_which_the_version_fails_is_taken_back(world):
    world.push(1)
    score = world.service.score

    def fail(content, uri):
        if len(world.deployed()) == 2:
            raise ArithmeticError("out of memory")
        return score(content, uri)

    world.service.score = fail
    message = "version 1 on n1-standard-8 is taken back, version 1 on n2-standard-4 has all the traffic"
    with pytest.raises(GoldenFailed, match=message):
        world.push(1, **BIG)
    assert world.machines() == {(V1, "n2-standard-4"): 100}


def test_a_machine_on_trial_is_promoted_or_taken_back(world):
    world.push(1)
    for _ in range(2):
        world.push(1, traffic=(10,), **BIG)
        assert world.machines() == {(V1, "n2-standard-4"): 90, (V1, "n1-standard-8"): 10}
        message = world.rollback()[1]
        assert message == "version 1 on n1-standard-8 taken back, 1 on n2-standard-4 serves"
        assert world.machines() == {(V1, "n2-standard-4"): 100}
    world.push(1, traffic=(10,), **BIG)
    with pytest.raises(InputError, match="version 1 on n1-standard-8 has 10 %; marco deploy promote or"):
        world.push(1, **SMALL)
    for _ in range(2):
        world.promote(1)
        assert world.machines() == {(V1, "n1-standard-8"): 100}


def test_a_version_on_trial_keeps_its_machine_when_it_is_promoted(world):
    world.push(1)
    world.push(2, traffic=(10,), **BIG)
    with pytest.raises(InputError, match="version 2 on n1-standard-8 has 10 %"):
        world.push(2, **SMALL)
    world.promote(2)
    assert world.machines() == {(V2, "n1-standard-8"): 100}


def test_leftovers_of_a_killed_push_on_the_check_endpoint_are_undeployed(world):
    """Another model's version of the same number, or another version, deployed or still being deployed."""
    options = world.options()
    check = endpoints.ensure_endpoint(world.api, "marco-check").name
    for name, number in (("other", 8), ("marco", 9)):
        release = endpoints.Release(f"gs://bucket/{name}/{number}", f"{number}" * 64)
        left = endpoints.ensure_version(world.api, options, name, release)
        endpoints.deploy(world.api, options, check, left)
    world.push(1)
    assert world.traffic() == {V2: 100} and world.deployed("marco-check") == []
    body = {"endpoint": check, "deployed_model": {"id": "77", "model": left.name, "display_name": "left"}}
    body["deployed_model"]["dedicated_resources"] = {"machine_spec": {"machine_type": "n2-standard-4"}}
    world.api.act("Endpoint", "deploy_model", {**body, "traffic_split": {"0": 100}})
    world.push(2)
    assert world.traffic() == {V3: 100} and world.deployed("marco-check") == []


def test_a_repeated_push_changes_nothing(world):
    world.push(1)
    world.push(2)
    before = world.final()
    requests = len(world.service.requests)
    world.push(2)
    repeated = world.service.requests[requests:]
    assert world.final() == before
    assert all(request.startswith("GET") for request in repeated)


def test_a_canary_stays_until_it_is_promoted(world):
    world.push(1)
    for _ in range(2):
        world.push(2, traffic=(25,))
        assert world.traffic() == {V1: 75, V2: 25}
    with pytest.raises(InputError, match="version 2 has 25 %; marco deploy promote or marco deploy rollback"):
        world.push(3)
    world.push(2)
    assert world.traffic() == {V2: 100}


def test_a_canary_is_taken_back_and_a_second_rollback_goes_no_further(world):
    world.push(1)
    world.push(2)
    world.push(3, traffic=(10,))
    for done in ("version 3 taken back, 2 serves", "version 2 serves already, 3 was taken back before"):
        assert world.rollback()[1].startswith(done)
        assert world.traffic() == {V2: 100} and world.deployed() == [V2]


@pytest.mark.parametrize("check_endpoint", [True, False])
def test_a_failed_push_cannot_be_rolled_back_to_and_leaves_the_rollback_possible(world, check_endpoint):
    world.push(1)
    world.push(2)
    world.broken.add("gs://bucket/models/3")
    with pytest.raises(GoldenFailed):
        world.push(3, check_endpoint=check_endpoint)
    assert world.traffic() == {V2: 100}
    assert world.rollback()[1] == "version 2 taken back, 1 serves"
    assert world.traffic() == {V1: 100}
    assert world.rollback()[1].startswith("version 1 serves already, 2 was taken back before")
    assert world.traffic() == {V1: 100} and world.deployed() == [V1]


def test_a_failed_push_after_a_rollback_allows_another_rollback(world):
    world.push(1)
    world.push(2)
    world.push(3, traffic=(10,))
    world.rollback()
    world.broken.add("gs://bucket/models/4")
    with pytest.raises(GoldenFailed):
        world.push(4, check_endpoint=False)
    assert world.rollback()[1] == "version 2 taken back, 1 serves"
    assert world.traffic() == {V1: 100}


def test_a_withdrawn_version_is_forgotten_once_somebody_else_has_moved_the_traffic(world):
    world.push(1)
    world.push(2)
    endpoint = world.service.endpoints["marco"]
    endpoint.labels = {**endpoint.labels, "marco-withdrawn": "3-1234567890"}
    assert world.rollback()[1] == "version 2 taken back, 1 serves"


@pytest.mark.parametrize("keep", [True, False])
def test_rollback_after_a_promotion(world, keep):
    world.push(1)
    world.push(2, keep_previous=keep)
    assert sorted(world.deployed()) == ([V1, V2] if keep else [V2])
    requests = len(world.service.requests)
    assert world.rollback()[1] == "version 2 taken back, 1 serves"
    assert any(":deployModel" in request for request in world.service.requests[requests:]) is not keep
    assert world.traffic() == {V1: 100} and world.deployed() == [V1]
    assert "default" in world.service.models["marco"][0].version_aliases
    assert "already" in world.rollback()[1]
    assert world.traffic() == {V1: 100}
    assert world.rollback(to=V2)[1] == "version 1 taken back, 2 serves"
    assert world.traffic() == {V2: 100}


def test_only_the_previous_version_is_kept_and_the_one_before_it_is_undeployed(world):
    for number in (1, 2, 3):
        world.push(number, keep_previous=True)
    assert sorted(world.deployed()) == [V2, V3]
    assert world.traffic() == {V3: 100}


def test_rollback_without_an_earlier_version_is_refused(world):
    with pytest.raises(InputError, match="there is no endpoint 'marco'"):
        world.rollback()
    world.push(1)
    with pytest.raises(InputError, match="cannot go back"):
        world.rollback()
    with pytest.raises(InputError, match="cannot go back to version 7; the registry has 1"):
        world.rollback(to="7")
    assert world.traffic() == {V1: 100}


def test_rollback_to_a_version_that_never_served_is_refused(world):
    """One whose golden check failed, and one that is on trial; their deployments do not change."""
    world.push(1)
    world.broken.add("gs://bucket/models/2")
    with pytest.raises(GoldenFailed):
        world.push(2)
    with pytest.raises(InputError, match=r"version 2, which never served; marco deploy push it, .* that did: 1"):
        world.rollback(to=V2)
    world.push(3, traffic=(10,))
    with pytest.raises(InputError, match="version 3 is on trial on endpoint marco, with 10 %; marco deploy promote it"):
        world.rollback(to=V3)
    assert world.traffic() == {V1: 90, V3: 10} and sorted(world.deployed()) == [V1, V3]
    with pytest.raises(InputError, match="version 2, which never served"):
        world.rollback(to=V2)
    assert world.traffic() == {V1: 90, V3: 10}
    assert world.rollback(to=V1)[1] == "version 3 taken back, 1 serves"


def test_rollback_can_name_any_version_that_served(world):
    for number in (1, 2, 3):
        world.push(number)
    world.push(4, traffic=(10,))
    for _ in range(2):
        world.rollback(to=V1)
        assert world.traffic() == {V1: 100} and world.deployed() == [V1]


def test_rollback_without_aliases_goes_by_the_label(world):
    world.push(1)
    world.push(2)
    for version in world.service.models["marco"]:
        version.version_aliases = [alias for alias in version.version_aliases if alias == "default"]
    assert world.rollback()[1] == "version 2 taken back, 1 serves"


def test_several_resources_of_the_same_name_are_refused(world):
    world.push(1)
    for resources in (world.service.endpoints, world.service.models):
        resources["other"] = resources["marco"]
        with pytest.raises(InputError, match=r"several (endpoints|models) of crystals are called 'marco'"):
            world.push(2)
        del resources["other"]


def test_an_endpoint_that_others_made_is_used(world):
    """Its labels are kept, and its only model is replaced."""
    world.push(1)
    endpoint = world.service.endpoints["marco"]
    endpoint.labels = {"team": "crystals"}
    world.push(2)
    assert world.traffic() == {V2: 100} and endpoint.labels["team"] == "crystals"


# Errors at every request: their kind, and whether they come before or after the request is carried out.
CHANGES = [(429, "before"), (500, "before"), (503, "after"), ("cut", "before"), ("cut", "after")]
READS = [(429, "before"), (500, "before"), ("cut", "after")]


def push_two(world):
    world.push(2)


def canary_two(world):
    world.push(2, traffic=(50,), check_endpoint=False)


def canary_and_back(world):
    """A rollback while a version is on trial."""
    world.push(2, traffic=(50,), check_endpoint=False)
    world.rollback()


def another_container(world):
    world.push(1, **OTHER)


def another_machine(world):
    world.push(1, **BIG)


def machine_and_promote(world):
    """A machine on trial, promoted by a command that does not name it."""
    world.push(1, traffic=(50,), check_endpoint=False, **BIG)
    world.promote(1)


def back(world):
    world.rollback()


def back_to_one(world):
    world.rollback(to=V1)


# The state in which a command begins, the command, and the traffic that an unproven version may have.
SWEPT = [
    ("served", push_two, 0),
    ("served", canary_and_back, 50),
    pytest.param("served", another_container, 0, marks=pytest.mark.long),
    pytest.param("served", another_machine, 0, marks=pytest.mark.long),
    pytest.param("served", machine_and_promote, 0, marks=pytest.mark.long),
    ("failed", back, 0),
    ("tried", back_to_one, 0),
]


def requests_of(world, command):
    with world.restored():
        command(world)
        requests, final = list(world.service.requests), world.final()
    return requests, final


def is_change(request):
    return not request.startswith("GET") and ":predict" not in request


def cases(requests, everything):
    """Yields the number of each request with a fault for it: for a change all of CHANGES, for a read one in turn.

    Unless `everything`, a change gets the worst fault, no answer after it took effect, and one in turn. Of reads that
    repeat the request before, such as polls of an operation, only the first gets a fault.
    """
    for number, request in enumerate(requests):
        if is_change(request):
            faults = CHANGES if everything else {CHANGES[-1], CHANGES[number % len(CHANGES)]}
            yield from ((number, fault) for fault in faults)
        elif not number or request != requests[number - 1]:
            yield number, READS[number % len(READS)]


def check_invariants(world, canary=0):
    assert world.unproven_traffic() <= canary
    assert all(sum(split.values()) == 100 for name, split, _ in world.moments if name == "marco")


@pytest.mark.slow
@pytest.mark.parametrize(("state", "command", "unproven"), SWEPT)
def test_an_error_at_any_single_request_is_survived(request, state, command, unproven):
    world = request.getfixturevalue(state)
    requests, final = requests_of(world, command)
    assert sum(map(is_change, requests)) >= 4
    for number, fault in cases(requests, everything=command is push_two):
        with world.restored():
            world.service.fault = lambda index, method, path, at=number, fault=fault: fault if index == at else None
            command(world)
            assert world.final() == final, (number, fault, requests[number])
            check_invariants(world, unproven)


@pytest.mark.slow
@pytest.mark.parametrize(("state", "command", "unproven"), SWEPT)
def test_an_outage_from_any_request_on_leaves_the_old_version_serving_and_the_command_can_be_repeated(
    request, state, command, unproven
):
    world = request.getfixturevalue(state)
    requests, final = requests_of(world, command)
    for number, asked in enumerate(requests):
        # A failed read leaves the state as it was: every third is enough.
        befores = ("before",) if number % 3 == 0 else ()
        for first in ("before", "after") if is_change(asked) else befores:
            with world.restored():
                world.service.fault = lambda index, method, path, at=number, first=first: (
                    ("cut", first if index == at else "before") if index >= at else None
                )
                with pytest.raises((ClusterError, InputError)):
                    command(world)
                assert sum(world.traffic().values()) == 100
                check_invariants(world, unproven)
                world.service.fault = lambda index, method, path: None
                command(world)
                assert world.final() == final, (number, first, asked)
                check_invariants(world, unproven)


def test_a_refusal_of_any_change_ends_at_once_with_the_old_version_serving(served):
    requests, _ = requests_of(served, push_two)
    for number in [number for number, request in enumerate(requests) if is_change(request)]:
        status = (400, 403, 404)[number % 3]
        with served.restored():
            served.service.fault = lambda index, method, path, at=number, status=status: (
                (status, "before") if index == at else None
            )
            with pytest.raises(InputError, match=f"to [a-z ]+: {status} injected; "):
                push_two(served)
            assert sum(served.traffic().values()) == 100
            check_invariants(served)
            push_two(served)
            assert served.traffic() == {V2: 100}


def test_a_change_by_somebody_else_in_between_is_not_overwritten(served):
    """Somebody labels the endpoint between its reading and its change."""
    with served.restored():
        done = []

        def fault(index, method, path):
            if method == "PATCH" and not done:
                done.append(path)
                endpoint = served.service.endpoints["marco"]
                endpoint.labels = {**endpoint.labels, "cost-centre": "x"}
                served.service._renew_etag(endpoint)

        served.service.fault = fault
        push_two(served)
        assert done and served.traffic() == {V2: 100}
        assert served.service.endpoints["marco"].labels["cost-centre"] == "x"
