import logging

from pipelines.local_runner import run_log


def test_each_step_prints_one_line_and_everything_is_in_the_file(tmp_path, capsys):
    absl = logging.getLogger("absl")
    with run_log(2, tmp_path / "run.log") as steps:
        steps.begin("Transform")
        absl.info("Going to run a new execution 7")
        logging.getLogger("marco_model.training").info("Step 10: accuracy 0.5")
        steps.end(reused=False)
        steps.begin("Trainer")
        steps.end(reused=True)
        logging.getLogger("apache_beam").error("it broke\nwith details")
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "[1/2] Transform",
        "      Step 10: accuracy 0.5",
        "      done in 0 s",
        "[2/2] Trainer",
        "      unchanged, reused",
        "      it broke",
    ]
    kept = (tmp_path / "run.log").read_text()
    assert "Going to run a new execution 7" in kept
    assert "with details" in kept


def test_logging_is_as_before_afterwards(tmp_path):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with run_log(1, tmp_path / "run.log"):
        assert root.handlers != before
    assert root.handlers == before
    assert root.level == level
