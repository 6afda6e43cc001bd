import pytest

from components.trainer.jobset_api import Failure, failure_cause

WORKER = Failure("worker 1", 1, "Error", "2026-01-01 00:00:09", ("no space left",))
FOLLOWED = Failure("chief 0", 1, "Error", "2026-01-01 00:00:08", ("error: another worker is gone at step 3",))
TOLD = Failure("worker 0", 143, "Error", "2026-01-01 00:00:07", ())
LATER = Failure("worker 2", 137, "OOMKilled", "2026-01-01 00:00:10", ())


@pytest.mark.parametrize(
    ("failures", "first"),
    [([FOLLOWED, TOLD, LATER, WORKER], WORKER), ([FOLLOWED, TOLD], TOLD), ([FOLLOWED], FOLLOWED), ([], None)],
)
def test_the_cause_is_the_first_that_did_not_end_for_lack_of_another(failures, first):
    assert failure_cause(failures) == first
