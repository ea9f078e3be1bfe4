"""Where it is not known which cluster to talk to."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from halvard.kube import Kube, NoCluster


@pytest.mark.parametrize("content", [None, b"", b"current-context: lost", b"{", b"\xff\xfe"])
async def test_a_file_that_names_no_cluster_is_told_of(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NoCluster, match=re.escape(str(path))):
        await Kube.connect(path)


@pytest.mark.parametrize("command", [["operator"], ["check", "--namespace", "team-a", "--image", "collector:1"]])
def test_a_command_without_a_cluster_says_where_it_looked(tmp_path: Path, command: list[str]) -> None:
    environment = {
        "HOME": str(tmp_path),
        "HALVARD_COLLECTOR_IMAGE": "collector:1",
        "HALVARD_COLLECTOR_URL": "https://h:1",
    }
    whole = [sys.executable, "-m", "halvard", *command]
    done = subprocess.run(whole, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"no cluster to talk to: {tmp_path}/.kube/config: " in done.stderr
