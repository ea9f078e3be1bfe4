"""The operator as its users have it: installed by Helm, in Pods of the cluster."""

import base64
import contextlib
import json
import os
import signal
from dataclasses import dataclass

from e2e.pushes import Door
from e2e.studies import PATIENCE, Manifest, eventually
from lab.cluster import Cluster
from lab.helm import CHART, Helm
from lab.machine import running_with

TIMEOUT = f"--timeout={PATIENCE:.0f}s"


@dataclass(frozen=True)
class Release:
    """A release of the chart, by its name and namespace, once `install` has been called."""

    cluster: Cluster
    helm: Helm
    namespace: str
    name: str = "halvard"

    def install(self, *options: str, chart: str = str(CHART)) -> str:
        """Installs the chart and waits until its Pods are ready and one of them leads; what Helm says."""
        said = self._helm("install", self.name, chart, "--wait", TIMEOUT, *options)
        self.leader()
        return said

    def upgrade(self, *options: str, chart: str = str(CHART)) -> str:
        """Upgrades the release and waits; what Helm says."""
        return self._helm("upgrade", self.name, chart, "--wait", TIMEOUT, *options)

    def rollback(self) -> str:
        """Goes back to the revision before and waits; what Helm says."""
        return self._helm("rollback", self.name, "--wait", TIMEOUT)

    def uninstall(self) -> str:
        """Uninstalls the release, if there is one, and waits until its Pods are gone; what Helm says."""
        said = self._helm("uninstall", self.name, "--ignore-not-found", "--wait", TIMEOUT)
        self.kubectl("wait", "--for=delete", "pods", f"--selector=app.kubernetes.io/instance={self.name}", TIMEOUT)
        return said

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints in the release's namespace."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments).stdout

    def pods(self) -> list[str]:
        """The names of the operator's Pods that are not being deleted."""
        listed = self.kubectl("get", "pods", f"--selector=app.kubernetes.io/instance={self.name}", "--output=json")
        items: list[Manifest] = json.loads(listed)["items"]
        return [pod["metadata"]["name"] for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def lease(self) -> Manifest:
        """The spec of the Lease by which one of them leads."""
        found: Manifest = json.loads(self.kubectl("get", f"lease/{self.name}", "--output=json"))["spec"]
        return found

    def leader(self) -> str:
        """The Pod that leads, has seen everything and listens; waits for one."""
        return eventually(self._leading)

    def kill(self, pod: str) -> bool:
        """SIGKILLs the operator that runs in this Pod, which the kubelet then starts anew; whether there was one."""
        running = running_with(f"HALVARD_IDENTITY={pod}")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):  # it may have ended
                os.kill(pid, signal.SIGKILL)
        return bool(running)

    def metrics(self) -> str:
        """What `/metrics` of the leader says."""
        return self._get(self.leader(), "metrics")

    def logs(self) -> str:
        """What all its Pods have printed."""
        selector = f"--selector=app.kubernetes.io/instance={self.name}"
        return self.kubectl("logs", selector, "--prefix", "--tail=-1", "--ignore-errors")

    def door(self) -> Door:
        """Where its Service takes pushes."""
        service = json.loads(self.kubectl("get", f"service/{self.name}", "--output=json"))["spec"]
        ca = json.loads(self.kubectl("get", f"secret/{self.name}-ca", "--output=json"))["data"]["ca.crt"]
        return Door(service["clusterIP"], service["ports"][0]["port"], base64.b64decode(ca).decode())

    def probes(self) -> str:
        """The address of the leader's plain port."""
        pod = json.loads(self.kubectl("get", f"pod/{self.leader()}", "--output=json"))
        return f"http://{pod['status']['podIP']}:8080"

    def _leading(self) -> str:
        found = self.cluster.kubectl(
            "get", f"lease/{self.name}", f"--namespace={self.namespace}", "-ojson", check=False
        )
        holder = json.loads(found.stdout)["spec"].get("holderIdentity", "") if found.stdout else ""
        if holder not in self.pods() or self._get(holder, "readyz").strip() != "leading":
            return ""
        return str(holder)

    def _get(self, pod: str, path: str) -> str:
        """What a Pod's plain port answers, by way of the API server; nothing where it does not answer."""
        raw = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8080/proxy/{path}"
        return self.cluster.kubectl("get", "--raw", raw, check=False).stdout

    def _helm(self, *arguments: str) -> str:
        return self.helm.run(*arguments, "--namespace", self.namespace)
