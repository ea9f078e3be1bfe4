"""docs/install.md as a platform engineer follows it: every command of the page, in its order, as it stands there."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.studies import show
from lab.binaries import binary
from lab.cluster import Cluster

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^## (.*?)\n|```sh\n(.*?)```", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def untouched(no_custom_resources: Cluster) -> Iterator[Cluster]:
    """A cluster that knows nothing of Halvard, before and after."""
    yield no_custom_resources
    no_custom_resources.kubectl(
        "delete", "namespace", "halvard-system", "team-a", "--ignore-not-found", "--timeout=120s"
    )


def test_every_command_of_the_page_works(untouched: Cluster, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("helm", "kubectl"):
        (programs / name).symlink_to(binary(name))
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(untouched.kubeconfig),
        "HOME": str(tmp_path),
    }
    transcript = ""
    for heading, commands in BLOCKS:
        for command in commands.splitlines():
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            transcript += f"$ {command}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, transcript
        transcript += f"# {heading}\n" if heading else ""
    show("the commands of docs install.md", transcript)
    assert "Phase:          Succeeded" in transcript  # helm test
