"""A whole Kubernetes on this machine: two real nodes, pretended GPUs. By hand: `python -m lab.cluster up|down|status`.

Needs root and Debian's packages (`machine.py`); no Docker, no virtual machine, no registry. One at a time on a machine.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.binaries import PROGRAMS, binary, cache, locked
from lab.control_plane import ADMIN, ControlPlane
from lab.images import COLLECTOR, DIGITS, all_images
from lab.images import OPERATOR as OPERATOR_IMAGE
from lab.machine import ADDRESS, MARK, add_link, clear, prepare, processes, run
from lab.node import Node
from lab.services import DNS, PROXY, RIGHTS, dns_options, proxy_options, wait_for_services

NODES = 2
GPUS = 4  # on each node
STATE = cache() / "cluster"
OPERATOR = "halvard-operator"
MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"


class Cluster:
    """The lab's cluster, running from `start` to `stop`.

    `kubeconfig` makes its reader a cluster administrator; `audit` is a file with one JSON object for each request about
    Halvard's objects, Pods, Events and Leases; Pods reach what listens on this machine at `address`.
    """

    def __init__(self, state: Path = STATE) -> None:
        """Names everything; nothing runs yet."""
        self.state = state
        self.address = ADDRESS
        self.nodes = {node.name: node for node in (Node(index, state) for index in range(NODES))}
        self.control_plane = ControlPlane(
            directory=state / "control-plane",
            address=ADDRESS,
            users={
                **ADMIN,
                OPERATOR: "system:masters",  # all rights, under a name of its own: the audit log tells who wrote what
                MANAGER: "system:authenticated",
                SCHEDULER: "system:authenticated",
                PROXY: "system:authenticated",
                DNS: "system:authenticated",
                **{f"system:node:{name}": "system:nodes" for name in self.nodes},
            },
            options=(
                "--enable-admission-plugins=NodeRestriction",
                "--kubelet-preferred-address-types=InternalIP",
                f"--kubelet-client-certificate={state / 'kubelet-client.crt'}",
                f"--kubelet-client-key={state / 'kubelet-client.key'}",
            ),
        )
        self.operator_image, self.collector_image, self.trainer_image = OPERATOR_IMAGE, COLLECTOR, DIGITS
        self.kubeconfig = self.control_plane.kubeconfig
        self.operator_kubeconfig = state / "operator.kubeconfig"
        self.audit = self.control_plane.audit
        self.controllers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Clears what an earlier lab left, starts everything and waits until both nodes are ready."""
        prepare()
        clear(self.state)
        self.control_plane.directory.mkdir(parents=True)
        os.environ[MARK] = str(self.state)  # whatever is started from here on is part of the lab
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops everything and leaves nothing."""
        os.environ.pop(MARK, None)
        clear(self.state)
        self.control_plane.stop()
        for node in self.nodes.values():
            node.reap()
        for process in self.controllers:
            process.wait()

    def kubectl(
        self,
        *arguments: str,
        input: str = "",  # noqa: A002  # as in subprocess.run
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as administrator; raises ControlPlaneError with its words where it fails and `check` is on."""
        return self.control_plane.kubectl(*arguments, input=input, check=check)

    def restart_apiserver(self) -> None:
        """Kills the API server and starts it on the same data."""
        if self.control_plane.apiserver is not None:
            self.control_plane.apiserver.kill()  # asked politely, it waits for open watches
        self.control_plane.stop_apiserver()
        self.control_plane.start_apiserver()

    def stop_kubelet(self, node: str) -> None:
        """Stops a node's kubelet where it stands: the node falls silent, its containers run on."""
        self.nodes[node].stop_kubelet()

    def continue_kubelet(self, node: str) -> None:
        """Lets a stopped kubelet go on."""
        self.nodes[node].continue_kubelet()

    def replace_node(self, node: str) -> None:
        """Has a node begin anew, its kubelet stopped or not: its Pods are gone, what still runs of them is ended."""
        certificate = self.state / "kubelet-client.crt"
        self.nodes[node].kill_kubelet()
        self.kubectl("delete", "node", node)
        self._start_kubelet(self.nodes[node], certificate)
        self._wait_registered(self.nodes[node], certificate)
        self._wait_node(node)

    def claim(self, namespace: str, name: str) -> Path:
        """Makes a PersistentVolumeClaim that any user on any node may write to; the directory behind it."""
        directory = self.state / "volumes" / f"{namespace}-{name}"
        directory.mkdir(parents=True)
        directory.chmod(0o777)
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": directory.name},
            "spec": {
                **common,
                "capacity": {"storage": "1Gi"},
                "hostPath": {"path": str(directory), "type": "Directory"},
                "claimRef": {"namespace": namespace, "name": name},
            },
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": directory.name},
        }
        both = {"apiVersion": "v1", "kind": "List", "items": [volume, claim]}
        self.kubectl("apply", "-f", "-", input=json.dumps(both))
        # a kubelet that finds it unbound looks again only after half a minute
        bound = "--for=jsonpath={.status.phase}=Bound"
        self.kubectl("wait", bound, f"pvc/{name}", f"--namespace={namespace}", "--timeout=60s")
        return directory

    def _start(self) -> None:
        for name in PROGRAMS:
            binary(name)
        images = all_images()
        add_link([ADDRESS, *(node.address for node in self.nodes.values())])
        certificate = self._client_certificate()
        with ThreadPoolExecutor() as pool:
            importing = [pool.submit(node.start_containerd, images) for node in self.nodes.values()]
            self.control_plane.__enter__()
            self.operator_kubeconfig.write_text(json.dumps(self.control_plane.kubeconfig_of(OPERATOR)))
            self._start_controllers()
            self._start_services()
            for future in importing:
                future.result()
        for node in self.nodes.values():
            self._start_kubelet(node, certificate)
        for node in self.nodes.values():
            self._wait_registered(node, certificate)
            self._wait_node(node.name)
        wait_for_services()

    def _client_certificate(self) -> Path:
        """Makes the certificate by which kubelets know the API server, signed by itself."""
        certificate, key = self.state / "kubelet-client.crt", self.state / "kubelet-client.key"
        request = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        names = ("-subj", "/CN=kube-apiserver", "-addext", "extendedKeyUsage=clientAuth", "-days", "30")
        run(*request, *names, "-keyout", key, "-out", certificate)
        return certificate

    def _start_controllers(self) -> None:
        directory = self.control_plane.directory
        options = ("--leader-elect=false", "--secure-port=0")
        self._spawn(
            "kube-controller-manager",
            *options,
            f"--kubeconfig={self._kubeconfig(MANAGER)}",
            "--controllers=*,-nodeipam,-cloud-node-lifecycle,-service-lb-controller,-node-route-controller",
            f"--service-account-private-key-file={directory / 'service-account.key'}",
            f"--root-ca-file={self.control_plane.certificate}",
            "--use-service-account-credentials",
            "--node-monitor-grace-period=16s",
        )
        self._spawn("kube-scheduler", *options, f"--kubeconfig={self._kubeconfig(SCHEDULER)}")

    def _start_services(self) -> None:
        self.kubectl("apply", "-f", "-", input=json.dumps(RIGHTS))
        self._spawn("kube-proxy", *proxy_options(self.state, self._kubeconfig(PROXY), next(iter(self.nodes))))
        self._spawn("coredns", *dns_options(self.state, self._kubeconfig(DNS)))

    def _kubeconfig(self, user: str) -> Path:
        path = self.state / f"{user.rpartition(':')[2]}.kubeconfig"
        path.write_text(json.dumps(self.control_plane.kubeconfig_of(user)))
        return path

    def _spawn(self, program: str, *options: str) -> None:
        with (self.state / f"{program}.log").open("ab") as log:
            process = subprocess.Popen([binary(program), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.controllers.append(process)

    def _start_kubelet(self, node: Node, certificate: Path) -> None:
        node.start_kubelet(self.control_plane.kubeconfig_of(f"system:node:{node.name}"), certificate)

    def _wait_registered(self, node: Node, certificate: Path) -> None:
        """Waits for the Node object. A kubelet that made none (seen once) says why, and is started once more."""
        registered = ("wait", "--for=create", f"node/{node.name}", "--timeout=60s")
        if self.kubectl(*registered, check=False).returncode:
            print(f"the kubelet of {node.name} is started again; it said:\n{node.kubelet_log()}", file=sys.stderr)
            node.kill_kubelet()
            self._start_kubelet(node, certificate)
            self.kubectl(*registered)

    def _wait_node(self, name: str) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=60s")
        # ephemeral-storage: the kubelet reports none here, and Pods that ask for some would never fit
        amounts = {"nvidia.com/gpu": str(GPUS), "ephemeral-storage": "20Gi"}
        patch = json.dumps({"status": {"capacity": amounts, "allocatable": amounts}})
        self.kubectl("patch", "node", name, "--subresource=status", "--type=merge", f"--patch={patch}")


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Waits until no other test run on this machine has a cluster, and keeps others out."""
    print("one cluster at a time on this machine: waiting for the turn ...", file=sys.stderr, flush=True)
    with locked(cache() / "cluster.lock"):
        yield


def main(command: str) -> None:
    """What a person types: up, down, status."""
    match command:
        case "up":
            cluster = Cluster()
            with only_one():
                start = time.monotonic()
                cluster.start()
            print(f"{', '.join(cluster.nodes)} ready after {time.monotonic() - start:.0f} s")
            print(f"export KUBECONFIG={cluster.kubeconfig}")
        case "down":
            with only_one():
                clear(STATE)
        case "status":
            for process in sorted(processes(STATE), key=lambda process: process.program):
                print(f"{process.pid:8} {process.program:30} {process.memory:5} MB")
        case _:
            sys.exit("up, down or status?")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
