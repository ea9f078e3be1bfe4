"""What the lab takes from its machine and gives back: Debian's packages, a link, processes, mounts, packet rules.

Every process of the lab carries `HALVARD_LAB` in its environment: what a killed run left is found without guessing.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "HALVARD_LAB"
LINK = "halvard0"
ADDRESS = "10.245.0.1"  # of the machine, as Pods see it
PODS = "10.244.0.0/16"
PROXY_SETTINGS = "kube-proxy.json"  # a state that holds it has had a kube-proxy
NEEDED = {  # a Debian package, and a program that shows that it, or something as good, is there
    "buildah": "buildah",
    "catatonit": "catatonit",
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "debootstrap": "debootstrap",
    "iproute2": "ip",
    "nftables": "nft",
    "openssl": "openssl",
    "runc": "runc",
}
GONE_TIMEOUT = 10_000  # milliseconds until a killed process must be gone


class MachineError(Exception):
    """The machine lacks something the lab needs; the message says what."""


@dataclass(frozen=True)
class Process:
    """A process of the lab: its id, the name of its program, its resident memory in MB."""

    pid: int
    program: str
    memory: int


def run(*command: str | Path, check: bool = True) -> str:
    """What the command prints; raises MachineError with its words where it fails and `check` is on."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise MachineError(
            f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


def prepare() -> None:
    """Installs the Debian packages that are missing, saying so; raises MachineError without root or apt-get."""
    if os.geteuid() != 0:
        raise MachineError("a cluster on this machine needs root: containers, mounts and network links are made")
    missing = [package for package, program in NEEDED.items() if shutil.which(program) is None]
    if missing:
        print(f"installing with apt-get: {' '.join(missing)}", file=sys.stderr, flush=True)
        run("apt-get", "update")
        run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends", *missing)


def add_link(addresses: list[str]) -> None:
    """Makes the link that carries the machine's and the nodes' addresses (veth: not every kernel has dummy)."""
    run("ip", "link", "add", LINK, "type", "veth", "peer", "name", f"{LINK}p")
    for name in (LINK, f"{LINK}p"):
        run("ip", "link", "set", name, "up")
    for address in addresses:
        run("ip", "address", "add", f"{address}/32", "dev", LINK)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def processes(state: Path) -> Iterator[Process]:
    """The processes of the lab with this state, whoever started them, but for those inside containers."""
    mark = f"{MARK}={state}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            if mark not in (directory / "environ").read_bytes().split(b"\0"):
                continue
            program = Path(os.fsdecode((directory / "cmdline").read_bytes().split(b"\0")[0])).name
            pages = int((directory / "statm").read_text().split()[1])
            yield Process(int(directory.name), program, pages * os.sysconf("SC_PAGE_SIZE") // 2**20)


def running_with(*variables: str) -> list[int]:
    """The processes of this machine, those in containers included, that were started with all these `NAME=value`."""
    wanted, found = {variable.encode() for variable in variables}, list[int]()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            if wanted <= {*(directory / "environ").read_bytes().split(b"\0")}:
                found.append(int(directory.name))
    return found


def clear(state: Path) -> None:
    """Removes whatever the lab with this state has on the machine, from its processes to its files."""
    for process in processes(state):
        kill(process.pid)
    for bundle in state.glob("*/run/io.containerd.runtime.v2.task/k8s.io/*"):
        remove_container(state, bundle)
    unmount(state)
    remove_links()
    if (state / PROXY_SETTINGS).exists():
        remove_rules()
    for directory in Path("/sys/fs/cgroup").glob("*/k8s.io"):
        with contextlib.suppress(OSError):  # not empty: another containerd's
            directory.rmdir()
    for stray in strays(Path("/var/log/containers"), state):
        stray.unlink()
    shutil.rmtree(state, ignore_errors=True)


def remove_container(state: Path, bundle: Path) -> None:
    """Ends what runs in a container and removes what containerd and its plugins keep of it outside the lab's state."""
    run("runc", "--root", state / "runc" / "k8s.io", "delete", "--force", bundle.name)
    with contextlib.suppress(FileNotFoundError):
        Path((bundle / "address").read_text().removeprefix("unix://")).unlink()
    for result in Path("/var/lib/cni/results").glob(f"*-{bundle.name}-*"):
        result.unlink()


def kill(pid: int) -> None:
    """Ends a process by force and waits until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(GONE_TIMEOUT)
        finally:
            os.close(descriptor)


def unmount(below: Path) -> None:
    """Unmounts everything below a directory, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{below}/"):
            run("umount", "--lazy", point)


def remove_links() -> None:
    """Removes the lab's link and those of its Pods: a stale one would take the next Pod's address."""
    routes = json.loads(run("ip", "-json", "route", "show", "root", PODS) or "[]")
    for link in {LINK, *(route["dev"] for route in routes)}:
        run("ip", "link", "delete", link, check=False)


def remove_rules() -> None:
    """Removes the rules that lead a Service's address to its Pods, which outlive their kube-proxy."""
    for family in ("ip", "ip6"):
        run("nft", "delete", "table", family, "kube-proxy", check=False)


def strays(directory: Path, state: Path) -> Iterator[Path]:
    """Links in a directory that point into the lab's state."""
    for path in directory.glob("*"):
        if path.is_symlink() and str(path.readlink()).startswith(f"{state}/"):
            yield path
