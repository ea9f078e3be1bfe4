"""docs/install.md and docs/operate.md as a platform engineer follows them: every command, as it stands there."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.release import Release
from e2e.studies import eventually, show, study, template
from lab.binaries import binary
from lab.cluster import Cluster
from lab.helm import Helm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def untouched(no_custom_resources: Cluster) -> Iterator[Cluster]:
    """A cluster that knows nothing of Halvard, before and after."""
    yield no_custom_resources
    no_custom_resources.kubectl("delete", "namespace", "halvard-system", "team-a", "--ignore-not-found")


def commands(page: str) -> list[str]:
    """The lines of a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def follow(lines: list[str], cluster: Cluster, home: Path) -> str:
    """Types the lines into one shell, until one of them fails; all that was seen."""
    programs = home / "bin"
    programs.mkdir()
    for name in ("helm", "kubectl"):
        (programs / name).symlink_to(binary(name))
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(home)}
    shell = ["bash", "-euxo", "pipefail", "-c", "\n".join(lines)]
    done = subprocess.run(
        shell, cwd=ROOT, env=environment, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_command_of_the_page_on_installing_works(untouched: Cluster, tmp_path: Path) -> None:
    seen = follow(commands("install.md"), untouched, tmp_path)
    show("the commands of docs install.md", seen)
    assert "Phase:          Succeeded" in seen  # helm test


def test_every_command_of_the_page_on_operating_works(untouched: Cluster, helm: Helm, tmp_path: Path) -> None:
    for namespace in ("halvard-system", "team-a"):
        untouched.kubectl("create", "namespace", namespace)
    release = Release(untouched, helm, "halvard-system")
    release.install()
    release.kill(release.leader())  # so that there is a log of before
    eventually(lambda: "1" in release.kubectl("get", "pods", "-ojsonpath={..restartCount}"))
    release.leader()
    digits = study(template(untouched, ["sleep", "1000"]), ["a"])
    untouched.kubectl(
        "apply", "--namespace=team-a", "-f", "-", input=json.dumps({**digits, "metadata": {"name": "digits"}})
    )
    for condition in ("create", "condition=Ready"):
        untouched.kubectl("wait", "--namespace=team-a", f"--for={condition}", "pod/digits-0000-1", "--timeout=120s")
    show("the commands of docs operate.md", follow(commands("operate.md"), untouched, tmp_path))
    untouched.kubectl("delete", "study", "digits", "--namespace=team-a")
    release.uninstall()
