"""The emulator of Google Cloud Storage as TensorFlow's own file system for gs:// reaches it.

TensorFlow knows no other address than https://www.googleapis.com and https://storage.googleapis.com, but goes through
the proxy that `HTTPS_PROXY` names, trusts the certificates in `CURL_CA_BUNDLE` and takes the token in
`GOOGLE_AUTH_TOKEN_FOR_TESTING` (tensorflow 2.16, `core/platform/cloud/curl_http_request.cc`, `gcs_file_system.cc`,
`google_auth_provider.cc`). The proxy here answers for both hosts itself.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import subprocess
import urllib.parse
from pathlib import Path

from tests.fakes import gcs_emulator, http_server

HOSTS = ("www.googleapis.com", "storage.googleapis.com")


class _Proxy(gcs_emulator.Proxy):
    """Answers CONNECT, and then requests to Google over TLS, from the emulator's server."""

    def do_CONNECT(self):
        if self.path.partition(":")[0] not in HOSTS:
            self.send(http_server.Answer(403, b""))
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        self.connection = self.request = self.server.service.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")

    def answer_request(self):
        # Objects are downloaded from the host that has them by their plain names.
        if self.headers["Host"].startswith("storage.") and not self.path.startswith(("/storage/", "/upload/")):
            bucket, _, name = urllib.parse.unquote(self.path.partition("?")[0]).removeprefix("/").partition("/")
            self.path = f"/download/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"
        # TensorFlow uploads in chunks, beside a Content-Length of what they hold together.
        connection = self.rfile
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
            self.headers.replace_header("Content-Length", str(len(body)))
            self.rfile = io.BytesIO(body)
        super().answer_request()
        self.rfile = connection

    def _chunk(self):
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _forward(self, port, body):
        answer = super()._forward(port, body)
        if place := answer.headers.get("Location"):
            answer.headers["Location"] = place.replace("http://", "https://", 1)
        return answer


@contextlib.contextmanager
def environment(emulator, folder: Path):
    """Yields the environment variables by which TensorFlow in another process uses the emulator; writes to `folder`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gcs"]
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command += ["-keyout", str(key), "-out", str(certificate), "-addext", f"subjectAltName={names}"]
    subprocess.run(command, check=True, capture_output=True)
    emulator.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    emulator.context.load_cert_chain(certificate, key)
    with http_server.serving(emulator, _Proxy) as url:
        yield {
            "HTTPS_PROXY": url,
            "https_proxy": url,
            "CURL_CA_BUNDLE": str(certificate),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }
