"""What the operator is measured on: a real etcd and kube-apiserver, and the operator as a process of its own."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.conftest import install
from lab.binaries import binary
from lab.control_plane import ControlPlane
from lab.operator_process import OperatorProcess

NAMESPACE = "bench"
OPERATOR = "operator"
REST = 2.0  # seconds without an event


@dataclass(frozen=True, slots=True)
class Bed:
    """A namespace with an operator. The audit log tells its requests from ours: it is a user of its own."""

    control_plane: ControlPlane
    operator: OperatorProcess

    @property
    def memory(self) -> float:
        """The operator's resident memory in MiB."""
        return self._metric("process_resident_memory_bytes") / 2**20

    async def has_seen_all(self) -> bool:
        """Whether the operator's watches, which begin by listing everything once more, have come to rest."""
        return self._metric('halvard_watch_age_seconds{resource="trials"}') > REST

    def _metric(self, name: str) -> float:
        lines = self.operator.metrics().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@contextlib.contextmanager
def made() -> Iterator[Bed]:
    """Starts it all, and ends it."""
    for name in ("etcd", "kube-apiserver", "kubectl"):
        binary(name)  # the first time this builds them, which takes minutes and says so
    with ControlPlane(users=dict.fromkeys(("admin", OPERATOR), "system:masters")) as control_plane:
        install(control_plane)
        control_plane.kubectl("create", "namespace", NAMESPACE)
        control_plane.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE)
        kubeconfig = control_plane.directory / "operator.kubeconfig"
        kubeconfig.write_text(json.dumps(control_plane.kubeconfig_of(OPERATOR)))
        operator = OperatorProcess(kubeconfig, "127.0.0.1", NAMESPACE, "collector:1", control_plane.directory)
        operator.start()
        try:
            yield Bed(control_plane, operator)
        finally:
            operator.stop()
