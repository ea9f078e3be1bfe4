"""One node of the lab: a containerd of its own and a kubelet, side by side with other nodes on the same machine."""

import json
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.binaries import binary
from lab.images import PAUSE, Image
from lab.machine import ADDRESS, MachineError, run

START_TIMEOUT = 30.0  # seconds

CONTAINERD = """\
version = 2
root = "{directory}/containerd"
state = "{directory}/run"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true  # a machine without CAP_SYS_RESOURCE may not lower it
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{state}/runc"
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
"""


@dataclass
class Node:
    """A node by its number, from which follow its name, its address, its Pods' addresses and its directory."""

    index: int
    state: Path
    containerd: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    kubelet: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the Node object."""
        return f"halvard-{self.index}"

    @property
    def address(self) -> str:
        """The node's address on the machine's link."""
        return f"10.245.0.{10 + self.index}"

    @property
    def directory(self) -> Path:
        """Where the node keeps its things."""
        return self.state / self.name

    @property
    def logs(self) -> Path:
        """What its containers print, in `<namespace>_<pod>_<uid>/<container>/<restart>.log`."""
        return self.directory / "logs"

    def start_containerd(self, images: list[Image]) -> None:
        """Starts containerd and gives it the images; raises MachineError where it does not answer."""
        (self.directory / "cni").mkdir(parents=True)
        (self.directory / "cni" / "10-pods.conflist").write_text(json.dumps(self._network()))
        settings = CONTAINERD.format(directory=self.directory, state=self.state, pause=PAUSE)
        (self.directory / "containerd.toml").write_text(settings)
        self.containerd = self._spawn("containerd", "--config", self.directory / "containerd.toml")
        self._wait_containerd()
        for image in images:
            self._ctr("image", "import", image.archive)

    def start_kubelet(self, kubeconfig: dict[str, object], client_certificate: Path) -> None:
        """Starts the kubelet; it believes whoever has the key of this certificate."""
        (self.directory / "kubeconfig").write_text(json.dumps(kubeconfig))
        (self.directory / "kubelet.json").write_text(json.dumps(self._kubelet_settings(client_certificate)))
        self.kubelet = self._spawn(
            binary("kubelet"),
            f"--config={self.directory / 'kubelet.json'}",
            f"--kubeconfig={self.directory / 'kubeconfig'}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--cert-dir={self.directory / 'pki'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
        )

    def kubelet_log(self) -> str:
        """The end of what the kubelet has said."""
        return (self.directory / "kubelet.log").read_text()[-4000:]

    def kill_kubelet(self) -> None:
        """Ends the kubelet, if it still runs; its containers run on."""
        assert self.kubelet is not None
        self.kubelet.kill()
        self.kubelet.wait()

    def reap(self) -> None:
        """Waits for the ends of its processes, which somebody has killed."""
        for process in (self.containerd, self.kubelet):
            if process is not None:
                process.wait()

    def stop_kubelet(self) -> None:
        """Stops the kubelet where it stands: the node falls silent, its containers run on."""
        assert self.kubelet is not None
        self.kubelet.send_signal(signal.SIGSTOP)

    def continue_kubelet(self) -> None:
        """Lets a stopped kubelet go on."""
        assert self.kubelet is not None
        self.kubelet.send_signal(signal.SIGCONT)

    def _network(self) -> dict[str, object]:
        ranges = [[{"subnet": f"10.244.{self.index}.0/24"}]]
        leases = str(self.directory / "ipam")
        ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": leases}
        plugin = {"type": "ptp", "ipMasq": False, "ipam": ipam}
        return {"cniVersion": "1.0.0", "name": self.name, "plugins": [plugin]}

    def _kubelet_settings(self, client_certificate: Path) -> dict[str, object]:
        signals = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(client_certificate)},  # it is its own authority
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.directory / 'containerd.sock'}",
            # cgroups v1 (1.34 is the last that takes them unasked), and no right to change limits of the whole machine
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "featureGates": {"InPlacePodVerticalScaling": False},  # its 1.34.10 panics where Pods have no cgroups
            "enforceNodeAllocatable": [],
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "evictionHard": dict.fromkeys(signals, "0%"),
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "clusterDomain": "cluster.local",
            "clusterDNS": [ADDRESS],
            "resolvConf": "",
            "maxPods": 250,
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": 12,
            "podLogsDir": str(self.logs),
            "volumePluginDir": str(self.directory / "plugins"),
        }

    def _wait_containerd(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self._ctr("version")
            except MachineError as error:
                if time.monotonic() > deadline:
                    raise MachineError(f"{error}; see {self.directory / 'containerd.log'}") from error
                time.sleep(0.1)
            else:
                return

    def _ctr(self, *arguments: str | Path) -> None:
        run("ctr", "--address", self.directory / "containerd.sock", "--namespace", "k8s.io", *arguments)

    def _spawn(self, program: str | Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
        with (self.directory / f"{Path(program).name}.log").open("ab") as log:
            command = [program, *arguments]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
