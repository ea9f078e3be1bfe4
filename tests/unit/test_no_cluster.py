"""Where it is not known which cluster to talk to."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from halvard.kube import Kube, NoCluster


@pytest.mark.parametrize("text", [None, "", "current-context: lost", "{"])
async def test_a_file_that_names_no_cluster_is_told_of(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NoCluster, match=re.escape(str(path))):
        await Kube.connect(path)


def test_an_operator_without_a_cluster_says_how_to_name_one(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "HALVARD_COLLECTOR_IMAGE": "collector:1",
        "HALVARD_COLLECTOR_URL": "https://h:1",
    }
    command = [sys.executable, "-m", "halvard", "operator"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert f"no cluster to talk to: {tmp_path}/.kube/config: " in done.stderr
