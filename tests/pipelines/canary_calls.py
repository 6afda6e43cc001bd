"""The calls of `marco` that the secrets canary makes: each command as it works, and as it fails, with what it reads."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NamedTuple

from tests.pipelines import kills

GOOGLE = ("google key", "google access token", "https proxy")
PLACE = "--project crystals --location europe-west4"
DROPS = f"--endpoint drops {PLACE} --set endpoint.golden_images=2"
MODEL = "--model run/models/1"
NO_LOGIN = {"MLFLOW_TRACKING_USERNAME": None, "MLFLOW_TRACKING_PASSWORD": None}
RUN = " ".join(["run", *(f"--set={name}={value}" for name, value in kills.SETTINGS.items())])
WEEKLY = "--cron '0 0 3 * * 1'"
PACKAGE = "--root gs://models/runs --output"
DEAD_PROXY = {"https_proxy": "http://u:{https_proxy}@127.0.0.1:9"}
PROXIED = "models list --tracking http://mlflow.example:5000"


class Call(NamedTuple):
    """A call: its words, where `{name}` is one of `World.words`; its exit status; the secrets that it presents.

    `says`: a part of its output. `refuses`: the secret that it reads and refuses. `changes`: variables of its
    environment, None for those that it lacks. `before`: what `test_canary.PREPARATIONS` does first.
    """

    words: str
    status: int = 0
    uses: tuple[str, ...] = ()
    says: str = ""
    refuses: str = ""
    changes: Mapping[str, str | None] = types.MappingProxyType({})
    before: str = ""


def refused(words: str, secret: str, before: str = "", **changes: str) -> Call:
    """Returns a call that is refused because of credentials in a URI."""
    return Call(words, 2, says="holds credentials", refuses=secret, changes=dict(changes), before=before)


# In the order in which they run, since most need what an earlier one made.
CALLS: dict[str, tuple[Call, ...]] = {
    "data synthesize": (
        Call("data synthesize --images 24 --size 200 --output data"),
        Call("data synthesize --images 24 --size big --output none", 2),
    ),
    "data export": (
        Call("data export data --output images"),
        Call("data export gs://models/none --output none", 2, GOOGLE, before="data in a bucket"),
    ),
    "data import": (
        Call("data import images --csv images/labels.csv --output imported --keep-splits"),
        Call("data import images --csv none.csv --output none", 2),
    ),
    "data inspect": (
        Call("data inspect data --contact-sheet sheet.png"),
        Call("data inspect gs://models/data", 0, GOOGLE),
        refused("data inspect https://bucket.example/data?X-Goog-Signature={signature}", "signature"),
    ),
    "data ingest": (
        Call("data ingest data --output checked"),
        Call("data ingest gs://models/data --output none", 2, changes=DEAD_PROXY),
    ),
    "run": (
        Call(f"{RUN} --output run", 0, ("mlflow password",)),
        Call(
            f"{RUN} --data data --output failed", 2, says="UNAUTHENTICATED", changes={"MLFLOW_TRACKING_PASSWORD": "no"}
        ),
        Call("run --output none --set tracking.uri={dead}", 2, says="127.0.0.1:9"),
        refused("run --output none --preset {inputs}/userinfo.yaml", "mlflow uri"),
        refused("run --output none --preset {inputs}/beam.yaml", "preset"),
        refused("run --output none --set tracking.uri={mlflow_uri_url}", "mlflow uri"),
        refused("run --output none --set data.source=https://bucket.example/x?sig={signature}", "signature"),
    ),
    "train": (
        Call("train {job}", 0, ("mlflow password",), before="job without its model"),
        Call("train none/job.json", 2),
        refused("train {inputs}/job.json", "mlflow uri", before="job with a login"),
    ),
    "compare": (
        Call("compare run champion", 0, ("mlflow password",)),
        Call("compare run none", 2),
        Call(
            "compare run {inputs}/run",
            2,
            says="which would get this environment's credentials",
            refuses="mlflow uri",
            before="run with a login",
        ),
    ),
    "ui": (
        Call("ui --no-browser", 0, ("mlflow password",)),
        refused("ui --no-browser", "mlflow uri", MLFLOW_TRACKING_URI="{mlflow_uri_url}"),
    ),
    "models list": (
        Call("models list", 0, ("mlflow password",)),
        Call("models list", 0, ("mlflow token",), changes={**NO_LOGIN, "MLFLOW_TRACKING_TOKEN": "{mlflow_token}"}),
        Call("models list --tracking {localhost}", 0, ("netrc",), changes=NO_LOGIN),
        Call(PROXIED, 0, ("http proxy", "mlflow password")),
        Call("models list --tracking {dead}", 2, says="127.0.0.1:9"),
        Call("models list", 2, says="error: ", changes={**NO_LOGIN, "MLFLOW_TRACKING_TOKEN": "{mlflow_token}\n"}),
        Call(PROXIED, 2, says="error: ", changes={"http_proxy": "http://u:{http_proxy}@127.0.0.1:9"}),
        Call(PROXIED, 2, says="error: ", changes={"http_proxy": "http://u:{http_proxy}/{http_proxy}@127.0.0.1:9"}),
        refused("models list", "mlflow uri", MLFLOW_TRACKING_URI="{mlflow_uri_url}"),
        refused("models list --tracking {mlflow_uri_url}", "mlflow uri"),
    ),
    "models promote": (
        Call("models promote 1 --destination published", 0, ("mlflow password",)),
        Call("models promote 2", 0, ("mlflow password",), before="second version"),
        Call("models promote 99", 2),
    ),
    "models rollback": (
        Call("models rollback", 0, ("mlflow password",)),
        Call("models rollback", 2, ("mlflow password",), says="no champion before it"),
    ),
    "predict": (
        Call(
            "predict images --model gs://models/marco/1 --output scores.csv --report plate.html",
            0,
            GOOGLE,
            before="models in a bucket",
        ),
        Call("predict images --model gs://models/none --output none.csv", 2, GOOGLE),
        Call(
            "predict images --model gs://models/marco/1 --output none.csv",
            2,
            says="error: ",
            changes={"GOOGLE_APPLICATION_CREDENTIALS": "{inputs}/damaged.json"},
        ),
    ),
    "explain": (
        Call(f"explain {{image}} {MODEL} --output explained --samples 2"),
        Call("explain {image} --model none --output none", 2),
    ),
    "tflite": (
        Call(f"tflite {{image}} {MODEL} --output model.tflite"),
        Call("tflite {image} --model none --output none.tflite", 2),
    ),
    "released": (
        Call("released --output released"),
        Call("released --output none", 2, ("pip index",), changes={"CANARY_WITHOUT_WEIGHTS": "1"}),
    ),
    "serve": (
        Call(f"serve {MODEL} --access-log --port {{port}}", 0, ("client token",)),
        Call("serve --model gs://models/none --port {port}", 2, GOOGLE),
    ),
    "relabel export": (
        Call(f"relabel export --data data --output look {MODEL} --raters a --share 0.5"),
        Call(f"relabel export --data gs://models/none --output none {MODEL}", 2, GOOGLE),
    ),
    "relabel merge": (
        Call("relabel merge sheet.csv --key look/key.csv --output overlay.csv", before="filled sheet"),
        Call("relabel merge none.csv --key look/key.csv --output none.csv", 2),
    ),
    "monitor reference": (
        Call(f"monitor reference data --output reference {MODEL} --sample 50"),
        Call(f"monitor reference gs://models/none --output none {MODEL}", 2, GOOGLE),
    ),
    "monitor check": (
        Call(f"monitor check data --reference reference --output drift {MODEL}", 0, ("mlflow password",)),
        Call(f"monitor check data --reference reference --output drift {MODEL} --tracking {{dead}}", 2),
        refused("monitor check data --reference reference --output none --tracking {mlflow_uri_url}", "mlflow uri"),
    ),
    "compile": (
        Call(f"compile --preset {{inputs}}/cluster.yaml {PACKAGE} package.yaml"),
        Call(f"compile --preset {{inputs}}/vertex.yaml --target vertex {PACKAGE} package.json"),
        refused(f"compile --preset {{inputs}}/userinfo.yaml {PACKAGE} none.yaml", "mlflow uri"),
        refused(f"compile --preset {{inputs}}/beam.yaml {PACKAGE} none.yaml", "preset"),
        refused(f"compile --site {{inputs}}/beam.yaml {PACKAGE} none.yaml", "preset"),
        Call(
            f"compile --preset {{inputs}}/variable.yaml {PACKAGE} none.yaml",
            2,
            says="use cluster.secrets",
            refuses="preset",
        ),
    ),
    "submit": (
        Call(
            "submit package.yaml --host {kubeflow} --token-file {token_file} --no-wait",
            0,
            ("kubeflow token", "kubeflow cookie"),
        ),
        Call("submit package.yaml --no-wait", 0, ("kubeconfig token",)),
        Call(f"submit package.json --target vertex {PLACE} --no-wait", 0, GOOGLE),
        Call("submit package.yaml --host {kubeflow} --no-wait", 2, ("kubeflow cookie",), says="401"),
        Call("submit package.yaml --host {dead} --token-file {token_file}", 2, says="cannot be reached"),
        Call("submit package.yaml --no-wait", 2, says="line break", changes={"KUBECONFIG": "{inputs}/newline"}),
        refused("submit package.yaml --no-wait", "kubeflow host", KF_PIPELINES_ENDPOINT="{kubeflow_host_url}"),
        refused(
            "submit {inputs}/login.yaml --host {kubeflow} --token-file {token_file} --no-wait",
            "preset",
            before="package with a login",
        ),
    ),
    "schedule": (
        Call(f"schedule package.yaml --host {{kubeflow}} --token-file {{token_file}} {WEEKLY}", 0, ("kubeflow token",)),
        Call(f"schedule package.json --target vertex {PLACE} --cron '0 3 * * 1'", 0, GOOGLE),
        Call(f"schedule package.yaml --host {{kubeflow}} {WEEKLY}", 2, says="401"),
        refused(f"schedule package.yaml {WEEKLY}", "kubeflow host", KF_PIPELINES_ENDPOINT="{kubeflow_host_url}"),
    ),
    "deploy push": (
        Call(f"deploy push --model gs://models/marco/1 {DROPS}", 0, GOOGLE),
        Call(f"deploy push --model gs://models/marco/2 --traffic 10 {DROPS}", 0, GOOGLE),
        Call(f"deploy push --model gs://models/none {DROPS}", 2, GOOGLE),
    ),
    "deploy promote": (
        Call(f"deploy promote {DROPS} --set endpoint.keep_previous=true", 0, GOOGLE),
        Call(f"deploy promote --endpoint none {PLACE}", 2, GOOGLE),
    ),
    "deploy rollback": (
        Call(f"deploy rollback {DROPS}", 0, GOOGLE),
        Call(f"deploy rollback --endpoint none {PLACE}", 2, GOOGLE),
    ),
    "deploy status": (
        Call(f"deploy status {DROPS}", 0, GOOGLE),
        Call(f"deploy status {DROPS} --api {{dead}}", 69, says="no answer"),
        Call(f"deploy status {DROPS}", 69, says="no answer", changes=DEAD_PROXY),
        Call(
            f"deploy status {DROPS}",
            69,
            says="error: ",
            changes={"https_proxy": "http://u:{https_proxy}/{https_proxy}@127.0.0.1:9"},
        ),
    ),
    "deploy batch": (Call(f"deploy batch --input gs://models/none --output gs://models/scores {PLACE}", 2, GOOGLE),),
    "cluster check": (
        Call("cluster check package.yaml", 1, ("kubeconfig token",)),
        Call(
            "cluster check {inputs}/store.yaml --inside",
            1,
            ("kubeconfig token", "store key", "http proxy"),
            before="package on Kubeflow's store",
        ),
        Call("cluster check package.yaml --pod"),
        Call(f"cluster check package.json --target vertex {PLACE}", 1, GOOGLE),
        Call("cluster check package.yaml", 2, says="line break", changes={"KUBECONFIG": "{inputs}/newline"}),
        Call("cluster check package.yaml", 69, changes={"KUBECONFIG": "{inputs}/dead"}),
    ),
}
