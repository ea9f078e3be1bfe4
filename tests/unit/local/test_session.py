"""What `halvard run` refuses before anything starts."""

import sys
from pathlib import Path
from typing import Any

import pytest

from halvard.local import session
from halvard.local.runner import Job
from halvard.local.session import BAD_INPUT, UnrunnableError, check_runnable, read, run
from halvard.local.store import ChangedError, check_unchanged
from halvard.study import Study


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not a YAML document: while parsing"),
        ("a: 1\n---\nb: 2", "not a YAML document: expected a single document"),
        ("- a", "expected one Study (a mapping with apiVersion, kind, metadata and spec)"),
        ("", "expected one Study (a mapping with apiVersion, kind, metadata and spec)"),
    ],
)
def test_a_file_that_holds_no_manifest_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UnrunnableError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: {expected}")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnrunnableError, match=f"^{tmp_path}: cannot be read: "):
        read(tmp_path)


def test_a_directory_of_results_that_cannot_be_made_is_refused(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study").touch()
    assert run(workshop.write(workshop.manifest()), tmp_path) == BAD_INPUT
    assert capsys.readouterr().err.startswith(f"--results: {tmp_path}/study has to be a directory that can be written")


def test_a_container_without_a_command_is_refused(workshop: Any, tmp_path: Path) -> None:
    manifest = workshop.manifest()
    del manifest["spec"]["template"]["spec"]["containers"][0]["command"]
    message = r"containers\[trainer\].command: required to run on this machine"
    with pytest.raises(UnrunnableError, match=message):
        check_runnable(Job(Study.from_manifest(manifest), manifest, tmp_path), 0)


@pytest.mark.parametrize("gpus_here", [0, 4])
def test_more_gpus_than_there_are_is_refused_but_not_where_there_are_none(
    workshop: Any, tmp_path: Path, gpus_here: int
) -> None:
    manifest = workshop.manifest()
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 4}}
    job = Job(Study.from_manifest(manifest), manifest, tmp_path)
    check_runnable(job, gpus_here)
    with pytest.raises(UnrunnableError, match=r"nvidia\.com/gpu is 4, but this machine has 3"):
        check_runnable(job, 3)


RULE = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}


def test_what_can_be_edited_on_a_cluster_may_change_between_two_runs(workshop: Any, tmp_path: Path) -> None:
    before = workshop.manifest()
    after = workshop.manifest(parallelism=4, limits={"trials": 99}, suspend=True, failurePolicy={"rules": [RULE]})
    check_unchanged(Study.from_manifest(before), Study.from_manifest(after), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"initialPoints": [{"x": 0.25}]},
        {"objective": {"metric": "loss", "goal": "maximize"}},
        {"scheduler": {"asha": {"maxBudget": 27}}},
        {"parameters": [{"name": "x", "float": {"min": 0.0, "max": 2.0}}]},
    ],
)
def test_the_search_itself_may_not(workshop: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    before, after = workshop.manifest(), workshop.manifest(**change)
    with pytest.raises(ChangedError, match=r"^spec\.(\w+): \1 cannot be changed once the study has started") as refused:
        check_unchanged(Study.from_manifest(before), Study.from_manifest(after), tmp_path)
    assert str(refused.value).startswith(f"spec.{next(iter(change))}: ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"env": [{"value": "1"}]},
        {"env": 3},
        {"args": "--epochs=3"},
        *({"resources": {"limits": {"nvidia.com/gpu": gpus}}} for gpus in ("x", 0.5, -1)),
    ],
)
def test_a_container_that_no_pod_could_have_is_refused(workshop: Any, tmp_path: Path, wrong: dict[str, Any]) -> None:
    manifest = workshop.manifest()
    manifest["spec"]["template"]["spec"]["containers"][0] |= wrong
    with pytest.raises(UnrunnableError, match=r"containers\[trainer\]: not written as a container of a Pod is"):
        check_runnable(Job(Study.from_manifest(manifest), manifest, tmp_path), 0)


def test_a_container_that_no_pod_could_have_is_refused_by_the_name_of_its_field(workshop: Any, tmp_path: Path) -> None:
    manifest = workshop.manifest()
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] = {"A": "b"}
    with pytest.raises(UnrunnableError, match=r"spec\.containers\[0\]\.env: .*; a list belongs here"):
        check_runnable(Job(Study.from_manifest(manifest), manifest, tmp_path), 0)


def test_how_to_go_on_after_python_m_halvard_is_a_command_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["operator/halvard/__main__.py", "run"])
    assert session._program() == [sys.executable, "-m", "halvard"]
