"""The whole pipeline with data, published models and MLflow's artifacts on `gs://`, with faults on the way.

The service is fake-gcs-server behind a proxy (tests/fakes/gcs_emulator.py), to which every process of the run goes.
"""

import json

import pytest

from marco_data.synthetic import Settings, synthesize
from marco_model.model_directory import PUSH_RECORD
from tests import processes

pytestmark = pytest.mark.slow

TINY = {
    "recipe.steps": 30,
    "recipe.batch_size": 8,
    "recipe.evaluate_every": 30,
    "transform.shorter_side": 152,
    "network.input_size": 151,
    "network.depth_multiplier": 0.1,
    "network.auxiliary": "false",
    "thresholds.accuracy": 0.05,
    "thresholds.recall/Crystals": 0.0,
    "gate.evidence": "false",  # So few images and steps show none.
    "data.source": "gs://drops/set",
    "destination": "gs://models/marco",
    "tracking.artifacts": "gs://artifacts/mlflow",
}
READING, PUSHING, LOGGING = "GET .*/o/set/.*alt=media", "POST /upload/.*/b/models/", "POST /upload/.*/b/artifacts/"


def run(output, **changes):
    settings = [f"--set={key}={value}" for key, value in {**TINY, **changes}.items()]
    return processes.run_marco("run", "--output", output, *settings, modules=processes.PIPELINE, cwd=output.parent)


@pytest.mark.long
def test_a_run_on_buckets_survives_faults_on_the_way(gcs, tmp_path, real_images):
    drops = gcs.bucket("drops")
    for name in ("models", "artifacts"):
        gcs.bucket(name)
    synthesize(tmp_path / "data", 64, Settings(shorter_side=160))
    for path in (tmp_path / "data").iterdir():
        drops.blob(f"set/{path.name}").upload_from_filename(str(path))
    faults = [
        *(gcs.inject(kind, READING, seconds=2) for kind in ("503", "slow", "cut")),
        *(gcs.inject(kind, PUSHING, seconds=2) for kind in ("503", "slow", "cut upload")),
        *(gcs.inject(kind, "POST .*/b/models/.*rewriteTo", seconds=2) for kind in ("503", "lost", "cut")),
        *(gcs.inject(kind, LOGGING, seconds=2) for kind in ("503", "slow", "cut upload")),
    ]
    output = tmp_path / "run"
    done = run(output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [fault.hits for fault in faults] == [1] * len(faults)

    summary = json.loads((output / "summary.json").read_text())
    assert summary["blessed"]
    assert summary["quarantined"] == 0
    assert sum(summary["examples"].values()) == 64
    assert summary["model_path"] == "gs://models/marco/1"
    (trained,) = output.glob("pipeline/Trainer/model/*/Format-Serving")
    expected = {
        path.relative_to(trained).as_posix(): path.read_bytes() for path in trained.rglob("*") if path.is_file()
    }
    pushed = gcs.objects("gs://models/marco/")
    note = json.loads(pushed.pop(f"1/{PUSH_RECORD}"))
    assert note["mlflow_run_id"] == summary["mlflow_run_id"]
    assert pushed == {f"1/{name}": content for name, content in expected.items()}
    logged = gcs.objects("gs://artifacts/mlflow/")
    figure = logged[f"{summary['mlflow_run_id']}/artifacts/confusion_matrix.png"]
    assert figure.startswith(b"\x89PNG")
    assert expected["saved_model.pb"] in logged.values()

    scores = tmp_path / "scores.csv"
    picture = str(real_images["crystals_10.jpeg"])
    gcs.inject("cut", "GET .*/b/models/.*alt=media")
    scored = processes.run_marco("predict", "--model", summary["model_path"], "--output", scores, picture)
    assert scored.returncode == 0, scored.stderr
    _, row = scores.read_text().splitlines()
    assert sum(float(score) for score in row.split(",")[5:9]) == pytest.approx(1, abs=1e-4)

    gcs.inject("403", "POST .*/b/models/.*rewriteTo.*saved_model", times=10**9)
    failed = run(output, destination="gs://models/other")
    assert failed.returncode == 2, failed.stdout + failed.stderr
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: gs://models/other is refused (403")
    assert gcs.objects("gs://models/other/") == {}
    assert set(gcs.objects("gs://models/marco/")) == {f"1/{name}" for name in [*expected, PUSH_RECORD]}
