"""Debian's Prometheus as a process of this machine that scrapes the operator's Pods and evaluates the chart's rules.

It scrapes what the chart's ServiceMonitor selects: the port `metrics` of the Services named halvard in one namespace.
Debian builds it without the discovery of a cluster's Pods, so that it asks this process for them.
"""

import contextlib
import functools
import http.server
import itertools
import json
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from lab import binaries
from lab.control_plane import free_port, kubectl, stop
from lab.helm import CHART
from lab.machine import run

RULES = CHART / "files" / "rules.yaml"
SELECTOR = "app.kubernetes.io/name=halvard"
PORT = "metrics"
INTERVAL = "2s"
START_TIMEOUT = 60.0  # seconds


class PrometheusError(Exception):
    """Prometheus did not start or refused a query; the message holds its words."""


def program(name: str) -> Path:
    """This machine's `prometheus` or `promtool`, else Debian's, only unpacked: installed, it would run as a service."""
    if found := shutil.which(name):
        return Path(found)
    unpacked = binaries.cache() / "prometheus"
    with binaries.locked(binaries.cache() / "prometheus.lock"):
        if not unpacked.exists():
            run("apt-get", "update", check=False)  # without root the package may still be known
            with tempfile.TemporaryDirectory(dir=binaries.cache()) as directory:
                here = Path(directory)
                binaries.run("downloading Prometheus", ["apt-get", "download", "prometheus"], directory=here)
                run("dpkg-deb", "--extract", next(here.glob("*.deb")), here / "fresh")
                (here / "fresh").rename(unpacked)
    return unpacked / "usr" / "bin" / name


class Prometheus:
    """A Prometheus on a free port of localhost, running inside a `with` statement; its data are in memory."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        """Chooses a port; nothing runs yet."""
        self.url = f"http://127.0.0.1:{free_port()}"
        self.find = functools.partial(pods, kubeconfig, namespace)
        self.process: subprocess.Popen[bytes] | None = None
        self.running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Starts it and waits until it answers; raises PrometheusError with its log."""
        with contextlib.ExitStack() as starting:
            directory = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="halvard-", dir="/dev/shm")))
            discovery = starting.enter_context(serving(self.find))
            (directory / "prometheus.json").write_text(json.dumps(settings(discovery)))
            options = (
                f"--config.file={directory / 'prometheus.json'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                f"--storage.tsdb.path={directory / 'data'}",
            )
            log = starting.enter_context((directory / "prometheus.log").open("ab"))
            process = subprocess.Popen([program("prometheus"), *options], stdout=log, stderr=log)
            starting.callback(stop, process)
            self._wait_ready(process, directory / "prometheus.log")
            self.running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it and removes its data."""
        self.running.close()

    def query(self, promql: str) -> list[dict[str, Any]]:
        """What a query gives now: series with their `metric` (labels) and `value` (text); raises PrometheusError."""
        rows = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': promql})}")["result"]
        return [{"metric": row["metric"], "value": row["value"][1]} for row in rows]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, each with its `labels`, `health` and `lastError`."""
        targets: list[dict[str, Any]] = self._get("/api/v1/targets?state=active")["activeTargets"]
        return targets

    def _wait_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise PrometheusError(f"Prometheus is not ready:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310  # it is http
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(error.read().decode()) from error


def settings(discovery: str) -> dict[str, object]:
    """Prometheus' configuration, with the address at which it asks for what it scrapes."""
    job = {
        "job_name": "halvard",
        "honor_labels": True,  # as in the ServiceMonitor
        "http_sd_configs": [{"url": discovery, "refresh_interval": INTERVAL}],
    }
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(RULES)],
        "scrape_configs": [job],
    }


@contextlib.contextmanager
def serving(find: Callable[[], list[dict[str, object]]]) -> Iterator[str]:
    """Tells Prometheus what there is to scrape, whenever it asks at the address that this yields."""

    class Discovery(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = json.dumps(find()).encode()  # where it fails there is no answer, and Prometheus keeps what it knows
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(found)

        @override
        def log_message(self, *_: object) -> None:
            """Says nothing: it is asked every other second."""

    with http.server.HTTPServer(("127.0.0.1", 0), Discovery) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def pods(kubeconfig: Path, namespace: str) -> list[dict[str, object]]:
    """The Pods to scrape, with the labels that the Prometheus operator gives them."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    query = urllib.parse.urlencode({"labelSelector": SELECTOR})
    slices = json.loads(kubectl(kubeconfig, "get", "--raw", f"{path}?{query}").stdout)["items"]
    found: list[dict[str, object]] = []
    for slice_ in slices:
        service = slice_["metadata"]["labels"]["kubernetes.io/service-name"]
        labels = {"namespace": namespace, "service": service, "job": service, "endpoint": PORT}
        ports = [port["port"] for port in slice_["ports"] or () if port["name"] == PORT]
        for port, endpoint in itertools.product(ports, slice_["endpoints"] or ()):
            targets = [f"{endpoint['addresses'][0]}:{port}"]
            found.append({"targets": targets, "labels": {**labels, "pod": endpoint["targetRef"]["name"]}})
    return found
