"""A TLS endpoint that answers pushes as a test tells it, and keeps what was pushed; and its certificates."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Push:
    """One request."""

    path: str
    token: str
    connection: tuple[str, int]
    body: Mapping[str, Any]

    @property
    def steps(self) -> list[int]:
        return [report["step"] for report in self.body["reports"]]


@dataclass(frozen=True)
class Reply:
    """One answer. `raw` stands in for the JSON of `body`; `hang_up` closes the connection after it without a word."""

    status: int
    body: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""
    hang_up: bool = False


Script = Callable[[Push], Reply | None]
"""What to answer; None breaks off without an answer."""


def keep(push: Push) -> Reply:
    """Acknowledge everything, and promote nothing."""
    return Reply(200, {"budget": push.body["budget"]})


class ScriptedEndpoint:
    """Listens on a port of its own at 127.0.0.1; `stored` has the steps that were acknowledged or received."""

    def __init__(self, certificate: Path, port: int = 0, script: Script = keep) -> None:
        self.script = script
        self.pushes: list[Push] = []
        self.stored: list[int] = []
        handler = type("Handler", (_Handler,), {"endpoint": self, "log_request": lambda *_: None})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: ScriptedEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = self.headers["Authorization"].removeprefix("Bearer ")
        push = Push(self.path, token, self.client_address, body)
        reply = self.endpoint.script(push)
        if reply is None:
            self.endpoint.pushes.append(push)
            self.close_connection = True
            return
        if reply.status in (200, 202):
            self.endpoint.stored += push.steps
        self.endpoint.pushes.append(push)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        payload = reply.raw or json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
        self.close_connection = reply.hang_up


@dataclass(frozen=True)
class Certificates:
    """A CA as PEM text, and certificates it issued, each in one file with its key, for 127.0.0.1 and another host."""

    ca: str
    good: Path
    other_host: Path


def issue(directory: Path) -> Certificates:
    """Make them, with what X.509's strict verification asks for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    usage = {
        "digital_signature": True, "content_commitment": False, "key_encipherment": False, "data_encipherment": False,
        "key_agreement": False, "key_cert_sign": True, "crl_sign": True, "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    ca = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )

    def leaf(host: str) -> Path:
        leaf_key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "endpoint")])
        address = x509.IPAddress(ipaddress.ip_address(host))
        certificate = (
            _builder(subject, name, leaf_key.public_key())
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        private = leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = directory / f"{host}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
        return path

    return Certificates(ca.public_bytes(Encoding.PEM).decode(), leaf("127.0.0.1"), leaf("192.0.2.1"))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
