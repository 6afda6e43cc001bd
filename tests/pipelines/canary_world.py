"""A place full of secrets: everything that `marco` may be given one by, and the services that it presents them to.

Each secret is a value of `canary_search`. A service remembers the secrets that a request carries, so that a test knows
that they were read and used, and answers only to the right one. MLflow is MLflow's own server behind a login; Google
Cloud is reached as it is by its own names, through an HTTPS proxy with a login, with a service account's private key.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import mlflow_server as mlflow_servers, processes
from tests.fakes import gcs_emulator, http_server, kubeflow_api, vertex_api
from tests.pipelines import canary_search

INHERITED = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN",
    "OPENAI_API_KEY", "WANDB_API_KEY", "DATABRICKS_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "PGPASSWORD",
)  # fmt: skip
"""Variables that no command reads: they would end somewhere only with the whole environment."""
USED = (
    "mlflow password", "mlflow token", "mlflow uri", "netrc", "google key", "google access token", "kubeconfig token",
    "kubeflow token", "kubeflow cookie", "kubeflow host", "store key", "http proxy", "https proxy", "pip index",
    "signature", "client token", "preset",
)  # fmt: skip
"""Secrets that a call presents to a service, or refuses."""
PASSED_ON = ("google key id", "uv index", "registry login", "git remote")
"""Read together with others: in a file, in the answer of a service, in the configuration of a checkout."""
TOKENS = "oauth2.googleapis.com"
PROJECT = {"project": "crystals", "location": "europe-west4"}
PACKAGES = ("marco_model", "marco_data", "marco_scoring", "components", "pipelines")
STORE_SECRET = "/api/v1/namespaces/marco/secrets/mlpipeline-minio-artifact"
LAUNCHER = """
def main():
    import hashlib, importlib.metadata, os, sys

    hashes = (hashlib.sha256(value.encode()).hexdigest() for value in os.environ.values())
    with open(os.environ["CANARY_WITNESS"], "a") as witness:
        witness.write(" ".join(hashes) + "\\n")
    if sys.argv[1] in ("run", "train"):
        from marco_model import inception_table

        inception_table.BLOCKS = {name: branches[:1] for name, branches in inception_table.BLOCKS.items()}
    if sys.argv[1] == "deploy" or "vertex" in sys.argv:
        from components.vertex import api

        api.Api.__init__.__defaults__ = (api.Pace(tries=2, first=1e-3, longest=1e-3, look=1e-3), api.show)
    if "--inside" in sys.argv:
        from pipelines.cluster_check import inside

        inside._resolve = lambda host: ["127.0.0.1"]
    if "CANARY_WITHOUT_WEIGHTS" in os.environ:
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        importlib.metadata.distribution = missing
    from marco_model import store
    from pipelines import cli

    store.RETRY_SECONDS = 3.0
    cli.main()


if __name__ == "__main__":  # The processes that draw drops import it, too.
    main()
"""


class Door(http_server.Handler):
    """Remembers the secrets of a request, and lets the world answer it."""

    def answer_request(self) -> None:
        world = self.server.service
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        carried = world.observe(self.headers)
        self.send(world.doors[self.server.server_port](self, carried, body))


class GoogleDoor(gcs_emulator.Proxy):
    """An HTTPS proxy with a login, behind which Google's hosts answer."""

    def do_CONNECT(self) -> None:
        world = self.server.service.world
        if "https proxy" not in world.observe(self.headers):
            self.send(http_server.Answer(407, b"", {"Proxy-Authenticate": "Basic"}))
            return
        if not self.path.endswith(".googleapis.com:443"):
            self.send(http_server.Answer(403, b""))
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        self.connection = self.request = world.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self.close_connection = False  # Python asks for a tunnel by HTTP/1.0.

    def answer_request(self) -> None:
        world, host = self.server.service.world, self.headers["Host"]
        carried = world.observe(self.headers)
        if host.startswith("oauth2"):
            self.send(world.google_token(self.rfile.read(int(self.headers["Content-Length"]))))
        elif "google access token" not in carried:
            self.send(http_server.json_answer(401, {"error": {"code": 401, "message": "who are you?"}}))
        elif host.startswith("storage"):
            super().answer_request()
        elif "aiplatform" not in host:
            self.send(http_server.json_answer(403, {"error": {"code": 403, "message": "not yours"}}))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send(world.vertex.respond(http_server.Request.parse(self.command, self.path, self.headers, body)))


class World:
    """`secrets`: by name. `seen`: names of those that a service was given so far. `work`: where commands run.

    `environment`: of every command. `words`: what the arguments of a command may name in braces. `inputs`: files of
    the user's that hold secrets. All other folders below `folder` are searched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work, self.home, self.inputs = folder / "work", folder / "home", folder / "inputs"
        self.checkout, self.outputs = folder / "checkout", folder / "outputs"
        for path in (self.work, self.home, self.inputs, self.outputs, folder / "tmp", folder / "mlflow"):
            path.mkdir(parents=True)
        numbers = iter(random.SystemRandom().sample(range(1 << 16), 64))
        self.secrets = {name: canary_search.value(next(numbers)) for name in (*USED, *PASSED_ON, *INHERITED)}
        self.seen: set[str] = set()
        self.kubeflow, self.vertex = kubeflow_api.KubeflowApi(), vertex_api.VertexApi()
        self.doors: dict[int, Any] = {}
        self.words: dict[str, str] = {}
        self.count, self.mlflow_port = 0, 0

    def observe(self, headers: Any) -> set[str]:
        """Returns the names of the secrets that the headers of a request carry, and remembers them."""
        texts = []
        for name in ("Authorization", "Proxy-Authorization", "Cookie"):
            kind, _, text = headers.get(name, "").partition(" ")
            texts.append(base64.b64decode(text).decode() if kind == "Basic" else f"{kind} {text}")
        carried = {name for name, value in self.secrets.items() if any(value in text for text in texts)}
        self.seen |= carried
        return carried

    # What answers at the doors.

    def mlflow(self, request: Door, carried: set[str], body: bytes) -> http_server.Answer:
        """Passes a request on to MLflow if it has a login."""
        if not carried & {"mlflow password", "mlflow token", "netrc"}:
            return http_server.json_answer(401, {"error_code": "UNAUTHENTICATED", "message": "who are you?"})
        connection = http.client.HTTPConnection("127.0.0.1", self.mlflow_port, timeout=120)
        target = request.path.removeprefix("http://mlflow.example:5000")
        dropped = ("connection", "host", "authorization", "proxy-authorization")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        connection.request(request.command, target, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {name: value for name, value in answer.headers.items() if name.lower() in ("content-type", "location")}
        return http_server.Answer(answer.status, content, kept)

    def proxy(self, request: Door, carried: set[str], body: bytes) -> http_server.Answer:
        """Leads to MLflow, and to Kubeflow's object store, which checks that a request is signed with its key."""
        if "http proxy" not in carried:
            return http_server.Answer(407, b"", {"Proxy-Authenticate": "Basic"})
        if request.path.startswith("http://mlflow.example:5000/"):
            return self.mlflow(request, carried, body)
        if not request.path.startswith("http://seaweedfs.kubeflow:9000/"):
            return http_server.Answer(404, b"")
        from pipelines.cluster_check import inside

        moment = inside.datetime.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
        keys = ("marco", self.secrets["store key"])
        signed = inside.signed(request.command, request.path, keys, body, moment)
        assert request.headers["Authorization"] == signed["Authorization"]
        self.seen.add("store key")
        return http_server.Answer(404, b"")

    def google_token(self, body: bytes) -> http_server.Answer:
        """Returns an access token for a request that is signed with the private key."""
        from google.auth import jwt

        assertion = dict(urllib.parse.parse_qsl(body.decode()))["assertion"]
        jwt.decode(assertion, certs=self.public_key)
        self.seen.add("google key")
        token = {"access_token": self.secrets["google access token"], "expires_in": 3600, "token_type": "Bearer"}
        return http_server.json_answer(200, token)

    def kubernetes(self, request: Door, carried: set[str], body: bytes) -> http_server.Answer:
        """Kubernetes, behind whose API Kubeflow Pipelines can be reached, too."""
        if "kubeconfig token" not in carried:
            return http_server.json_answer(401, {"message": "Unauthorized"})
        if "/apis/v2beta1/" in request.path:
            request.path = "/apis/v2beta1/" + request.path.partition("/apis/v2beta1/")[2]
            return self.pipelines(request, {"kubeflow token"}, body)
        coded = {
            "accesskey": base64.b64encode(b"marco").decode(),
            "secretkey": base64.b64encode(self.secrets["store key"].encode()).decode(),
            ".dockerconfigjson": base64.b64encode(self.secrets["registry login"].encode()).decode(),
        }
        if request.command == "POST":
            return http_server.json_answer(201, {"status": {"allowed": True}})
        if "/secrets/" in request.path:
            return http_server.json_answer(200, {"data": coded})
        return http_server.json_answer(404, {"message": "not found"})

    def pipelines(self, request: Door, carried: set[str], body: bytes) -> http_server.Answer:
        """Kubeflow Pipelines."""
        if "kubeflow token" not in carried:
            return http_server.json_answer(401, {"error": "Unauthenticated", "message": "who are you?"})
        return self.kubeflow.respond(http_server.Request.parse(request.command, request.path, request.headers, body))

    def nothing(self, request: Door, carried: set[str], body: bytes) -> http_server.Answer:
        """An index without packages."""
        return http_server.Answer(404, b"")

    # What a user has.

    def prepare(self, stack: contextlib.ExitStack, gcs: Any) -> None:
        """Starts the services, and writes the files of the user."""
        secret = self.secrets
        urls = {}
        for name in ("mlflow", "proxy", "kubernetes", "pipelines", "nothing"):
            urls[name] = stack.enter_context(http_server.serving(self, Door))
            self.doors[int(urls[name].rpartition(":")[2])] = getattr(self, name)
        self.gcs = gcs
        gcs.world, gcs.respond = self, None
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = self._make_keys()
        self.tls.load_cert_chain(certificate, self.inputs / "tls.pem")
        google = stack.enter_context(http_server.serving(gcs, GoogleDoor))
        self.mlflow_port = stack.enter_context(mlflow_server(self.folder / "mlflow"))
        token_file = self.inputs / "token"
        token_file.write_text(secret["kubeflow token"] + "\n")
        self._write_home(urls["kubernetes"])
        self._make_checkout()
        doors = {
            "http proxy": urls["proxy"],
            "https proxy": google,
            "pip index": urls["nothing"],
            "uv index": urls["nothing"],
            "mlflow uri": urls["mlflow"],
            "kubeflow host": urls["pipelines"],
        }
        login = {name: url.replace("//", f"//user:{secret[name]}@") for name, url in doors.items()}
        self.words = {
            **{name.replace(" ", "_"): value for name, value in secret.items()},
            **{f"{name.replace(' ', '_')}_url": value for name, value in login.items()},
            **{name: str(getattr(self, name)) for name in ("inputs", "work", "home")},
            "mlflow": urls["mlflow"],
            "localhost": urls["mlflow"].replace("127.0.0.1", "localhost"),
            "kubeflow": urls["pipelines"],
            "token_file": str(token_file),
            "dead": "http://127.0.0.1:9",
        }
        self._write_presets(login["mlflow uri"])
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "TF_CPP_MIN_LOG_LEVEL") if name in os.environ},
            **{name: secret[name] for name in INHERITED},
            "HOME": str(self.home),
            "TMPDIR": str(self.folder / "tmp"),
            "CANARY_WITNESS": str(self.inputs / "witness"),
            "MLFLOW_TRACKING_URI": urls["mlflow"],
            "MLFLOW_TRACKING_USERNAME": "user",
            "MLFLOW_TRACKING_PASSWORD": secret["mlflow password"],
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.inputs / "google.json"),
            "NO_GCE_CHECK": "true",
            "KUBECONFIG": str(self.inputs / "kubeconfig"),
            "REQUESTS_CA_BUNDLE": str(certificate),
            **dict.fromkeys(("http_proxy", "HTTP_PROXY"), login["http proxy"]),
            **dict.fromkeys(("https_proxy", "HTTPS_PROXY"), login["https proxy"]),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
            "PIP_INDEX_URL": login["pip index"] + "/simple",
            "PIP_RETRIES": "0",
            "UV_INDEX_URL": login["uv index"] + "/simple",
            "UV_DEFAULT_INDEX": login["uv index"] + "/simple",
        }

    def _make_keys(self) -> Path:
        """Writes the account's key and the certificate of Google's hosts, whose path it returns."""
        key, certificate, account = self.inputs / "tls.pem", self.inputs / "certificate.pem", self.inputs / "key.pem"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=google"]
        make += ["-keyout", str(key), "-out", str(certificate), "-addext", "subjectAltName=DNS:*.googleapis.com"]
        subprocess.run(make, check=True, capture_output=True)
        subprocess.run(["openssl", "genrsa", "-out", str(account), "2048"], check=True, capture_output=True)
        public = ["openssl", "rsa", "-in", str(account), "-pubout"]
        self.public_key = subprocess.run(public, check=True, capture_output=True).stdout
        self.key_lines = tuple(account.read_text().splitlines()[2:12])
        (self.inputs / "google.json").write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "crystals",
                    "private_key_id": self.secrets["google key id"],
                    "private_key": account.read_text(),
                    "client_email": "marco@crystals.iam.gserviceaccount.com",
                    "client_id": "1",
                    "token_uri": f"https://{TOKENS}/token",
                }
            )
        )
        return certificate

    def _write_home(self, kubernetes: str) -> None:
        secret = self.secrets
        netrc, context = self.home / ".netrc", self.home / ".config" / "kfp" / "context.json"
        netrc.write_text(f"machine localhost login user password {secret['netrc']}\n")
        netrc.chmod(0o600)
        context.parent.mkdir(parents=True)
        cookie = {"namespace": "", "client_authentication_cookie": f"session={secret['kubeflow cookie']}"}
        context.write_text(json.dumps(cookie))
        self.own_files = frozenset((netrc, context))
        token, dead = secret["kubeconfig token"], "http://127.0.0.1:9"
        kinds = {"kubeconfig": (kubernetes, token), "newline": (kubernetes, token + "\n"), "dead": (dead, token)}
        for name, (url, token) in kinds.items():
            config = {
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
            (self.inputs / name).write_text(yaml.safe_dump(config))

    def _write_presets(self, uri: str) -> None:
        """Writes presets: two that are right, and others with a secret where none may be."""
        login = f"http://user:{self.secrets['preset']}@proxy.example:3128"
        secrets = [{"name": "marco-mlflow", "variables": {"MLFLOW_TRACKING_PASSWORD": "password"}}]
        tracking = {"uri": "http://mlflow:5000"}
        changes = {
            "cluster": {"tracking": tracking, "cluster": {"secrets": secrets}},
            "vertex": {"tracking": tracking},
            "userinfo": {"tracking": {"uri": uri}},
            "beam": {"tracking": tracking, "beam": [f"--proxy={login}"]},
            "variable": {
                "tracking": tracking,
                "cluster": {"environment": {"AWS_SECRET_ACCESS_KEY": self.secrets["preset"]}},
            },
        }
        local = yaml.safe_load((processes.ROOT / "pipelines/presets/local.yaml").read_text())
        for name, values in changes.items():
            (self.inputs / f"{name}.yaml").write_text(yaml.safe_dump({**local, **values}))
        account = json.loads((self.inputs / "google.json").read_text())
        lines = account["private_key"].splitlines()
        account["private_key"] = "\n".join([*lines[:2], *lines[3:]]) + "\n"
        (self.inputs / "damaged.json").write_text(json.dumps(account))

    def _make_checkout(self) -> None:
        """Copies the packages into a checkout whose remote has a login."""
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(processes.ROOT / package, self.checkout / package, ignore=ignored)
        (self.checkout / "marco.py").write_text(LAUNCHER)
        remote = f"https://user:{self.secrets['git remote']}@git.example/marco.git"
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        for command in (
            ("init", "--quiet"),
            ("add", "."),
            (*author, "commit", "--quiet", "--message", "1"),
            ("remote", "add", "origin", remote),
        ):
            subprocess.run(["git", "-C", str(self.checkout), *command], check=True)

    # What is run.

    def job(self) -> Path | None:
        """Returns the job.json of the run, None before there is one."""
        return next((self.work / "run" / "checkpoints").glob("*/job.json"), None)

    def image(self) -> Path | None:
        """Returns an image, None before there is one."""
        return next((self.work / "images").rglob("*.jpg"), None)

    def mlflow_client(self) -> Any:
        """Returns a client of MLflow that needs no login."""
        from mlflow import MlflowClient

        return MlflowClient(f"http://127.0.0.1:{self.mlflow_port}")

    def start(self, words: list[str], changes: dict[str, str | None]) -> tuple[subprocess.Popen[bytes], Path]:
        """Starts a command; its output goes to a file of `outputs`, whose path is returned."""
        self.count += 1
        environment = {**self.environment, **{name: value for name, value in changes.items() if value is not None}}
        for name, value in changes.items():
            if value is None:
                environment.pop(name, None)
            elif name.endswith("_proxy"):
                environment[name.upper()] = value
        path = self.outputs / f"{self.count:03}.txt"
        command = [sys.executable, str(self.checkout / "marco.py"), *words]
        with path.open("wb") as file:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file, "cwd": self.work}
            return subprocess.Popen(command, env=environment, **options), path

    def run(self, words: list[str], changes: dict[str, str | None], seconds: float = 600) -> tuple[int, str]:
        """Runs a command and returns exit status and output."""
        process, path = self.start(words, changes)
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        return status, path.read_text(errors="replace")

    def inherited(self) -> set[str]:
        """Returns the names of the secrets that were in the environment of every process so far."""
        lines = [set(line.split()) for line in (self.inputs / "witness").read_text().splitlines()]
        hashes = {name: hashlib.sha256(self.secrets[name].encode()).hexdigest() for name in INHERITED}
        return {name for name, digest in hashes.items() if all(digest in line for line in lines)}


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """Yields the port of MLflow's own server, with its store and its artifacts in `folder`."""
    port = processes.free_port()
    arguments = ["mlflow", "server", f"--backend-store-uri=sqlite:///{folder}/mlflow.db"]
    arguments += ["--host=127.0.0.1", f"--port={port}", "--workers=1"]

    def answers() -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return True
        return False

    with mlflow_servers.running(arguments, folder, answers, 300):
        yield port


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """Yields a world in `folder`; its services end with the block."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        made = World(folder)
        made.prepare(stack, stack.enter_context(gcs_emulator.running(patch)))
        yield made
