"""A real etcd and kube-apiserver for tests: no root, nothing shared with another one, gone for good once stopped.

No controllers run beside them: a Pod stays as it is written, what a deleted object owned stays, a namespace gets no
`default` ServiceAccount and is never quite deleted.
"""

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.binaries import binary

READY_TIMEOUT = 120.0  # seconds: a loaded machine of two cores needs up to 20
STOP_TIMEOUT = 10.0
ADMIN = {"admin": "system:masters"}
OPERATOR = "halvard-operator"
CANDIDATES = ("candidate-one", "candidate-two")  # operators of which one leads
# all rights, under names of their own: the audit log tells who wrote what
USERS = {**ADMIN, **dict.fromkeys((OPERATOR, *CANDIDATES), "system:masters")}
API_AUDIENCE = "https://kubernetes.default.svc"

WRITTEN = [
    {"group": "halvard.dev"},
    {"group": "", "resources": ["pods", "pods/*"]},
    {"group": "coordination.k8s.io"},
]
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {  # what the history checker reads: every state in which an object was ever stored
            "level": "RequestResponse",
            "verbs": ["create", "update", "patch", "delete"],
            "resources": WRITTEN,
            "omitManagedFields": True,
        },
        {
            "level": "Metadata",
            "resources": [*WRITTEN, {"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}],
        },
        {"level": "None"},
    ],
}


class ControlPlaneError(Exception):
    """The control plane or a kubectl command failed; the message holds what was said."""


class ControlPlane:
    """An etcd and a kube-apiserver on free ports of localhost, running inside a `with` statement.

    `kubeconfig` makes its reader a cluster administrator; `audit` is a file with one JSON object for each request about
    Halvard's objects, Pods, Events and Leases, of writes also with what was stored (but for Events). RBAC, TokenRequest
    and TokenReview work as in any cluster.
    """

    def __init__(
        self,
        directory: Path | None = None,
        address: str = "127.0.0.1",
        users: Mapping[str, str] = USERS,
        options: tuple[str, ...] = (),
    ) -> None:
        """Prepares an empty directory; nothing runs yet.

        A whole cluster names the directory, the address to listen on, its users with the group of each, and more
        options of the API server.
        """
        memory = Path("/dev/shm")  # noqa: S108  # a fresh directory inside it; a test's store need not survive the machine
        self.directory = directory or Path(tempfile.mkdtemp(prefix="halvard-", dir=memory if memory.is_dir() else None))
        self.address = address
        self.users = users
        self.tokens = {user: secrets.token_hex(16) for user in users}
        self.options = options
        self.certificate = self.directory / "serving" / "apiserver.crt"
        self.kubeconfig = self.directory / "kubeconfig"
        self.audit = self.directory / "audit.log"
        self.etcd_url, self.etcd_peer_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.port = free_port()
        self.etcd: subprocess.Popen[bytes] | None = None
        self.apiserver: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts both and waits until the API server is ready; raises ControlPlaneError with the end of its log."""
        try:
            self._write_files()
            self._start_etcd()
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stops both and removes everything they wrote."""
        self.stop()

    def stop(self) -> None:
        """Stops both and removes everything they wrote."""
        self.stop_apiserver()
        stop(self.etcd)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_apiserver(self) -> None:
        """Starts the API server, on the data of an earlier one where there was one, and waits until it is ready."""
        directory = self.directory
        self.apiserver = self._spawn(
            "kube-apiserver",
            f"--etcd-servers={self.etcd_url}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--cert-dir={directory / 'serving'}",  # it makes its own certificate there
            "--service-cluster-ip-range=10.246.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--token-auth-file={directory / 'tokens.csv'}",
            f"--service-account-issuer={API_AUDIENCE}",
            f"--service-account-key-file={directory / 'service-account.key'}",
            f"--service-account-signing-key-file={directory / 'service-account.key'}",
            f"--api-audiences={API_AUDIENCE}",
            f"--audit-policy-file={directory / 'audit-policy.json'}",
            f"--audit-log-path={self.audit}",
            "--audit-log-maxsize=100000",  # megabytes: it is never cut in two
            *self.options,
        )
        self._wait_ready(self.apiserver)

    def stop_apiserver(self) -> None:
        """Stops the API server; the data stays."""
        stop(self.apiserver)
        self.apiserver = None

    def restart(self, *, store: bool = False) -> None:
        """Kills the API server, and etcd too if `store`, and starts them again on their data; waits until ready."""
        for process in (self.apiserver, self.etcd if store else None):
            if process is not None:
                process.kill()
                process.wait()
        if store:
            self._start_etcd()
        self.start_apiserver()

    def kubectl(
        self,
        *arguments: str,
        input: str = "",  # noqa: A002  # as in subprocess.run
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as administrator; raises ControlPlaneError with its words where it fails and `check` is on."""
        discovery = f"--cache-dir={self.directory / 'discovery'}"
        return kubectl(self.kubeconfig, discovery, *arguments, input=input, check=check)

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.port}"

    def kubeconfig_of(self, user: str) -> dict[str, object]:
        """A kubeconfig (JSON is YAML) that makes its reader this user."""
        cluster = {"server": self.server, "certificate-authority": str(self.certificate)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "current-context": "lab",
        }

    def _write_files(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
        (self.directory / "service-account.key").write_bytes(
            key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, no_password)
        )
        tokens = "".join(f"{self.tokens[user]},{user},{user},{group}\n" for user, group in self.users.items())
        (self.directory / "tokens.csv").write_text(tokens)
        self.kubeconfig.write_text(json.dumps(self.kubeconfig_of("admin")))
        (self.directory / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))

    def _start_etcd(self) -> None:
        self.etcd = self._spawn(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={self.etcd_peer_url}",
            f"--initial-advertise-peer-urls={self.etcd_peer_url}",
            f"--initial-cluster=default={self.etcd_peer_url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen([binary(name), *arguments], stdout=log, stderr=log, cwd=self.directory)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._ready():
            if process.poll() is not None or time.monotonic() > deadline:
                logs = "".join(log.read_text()[-4000:] for log in self.directory.glob("*.log") if log != self.audit)
                raise ControlPlaneError(f"kube-apiserver is not ready (exit code {process.poll()}):\n{logs}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=str(self.certificate))
            headers = {"Authorization": f"Bearer {self.tokens['admin']}"}
            request = urllib.request.Request(f"{self.server}/readyz", headers=headers)  # noqa: S310  # it is https
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def kubectl(
    kubeconfig: Path,
    *arguments: str,
    input: str = "",  # noqa: A002  # as in subprocess.run
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs kubectl on a cluster; raises ControlPlaneError with its words where it fails and `check` is on."""
    command = [str(binary("kubectl")), f"--kubeconfig={kubeconfig}", *arguments]
    # COLUMNS: `kubectl explain` breaks lines at the terminal's width
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, input=input, capture_output=True, text=True, check=False, env=environment)
    if check and done.returncode:
        raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def free_port() -> int:
    """A port of localhost that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen[bytes] | None) -> None:
    """Ends a process, by force where asking does not help (open watches hold up a polite API server for a minute)."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
