"""What operators in Pods printed, which the history checker rests on: nothing of it is lost with its file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.container_logs import ContainerLogs


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[ContainerLogs]:
    with contextlib.closing(ContainerLogs([tmp_path], "home")) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file of a container that has printed a line."""
    file = tmp_path / "home_operator_uid" / "operator" / "0.log"
    file.parent.mkdir(parents=True)
    file.write_text("one\n")
    return file


def test_what_a_container_printed_is_read_once(log: Path, logs: ContainerLogs) -> None:
    assert [logs.text(), logs.text()] == ["one\n", "one\n"]


def test_half_a_line_is_read_on(log: Path, logs: ContainerLogs) -> None:
    for part in ("tw", "o\n"):
        logs.read()
        with log.open("a") as file:
            file.write(part)
    assert logs.text() == "one\ntwo\n"


def test_what_is_written_before_the_file_goes_is_not_lost(log: Path, logs: ContainerLogs) -> None:
    logs.read()
    with log.open("a") as file:
        file.write("last words\n")
    log.unlink()
    assert logs.text() == "one\nlast words\n"


def test_a_file_that_was_rotated_is_read_to_its_end_and_not_again(log: Path, logs: ContainerLogs) -> None:
    logs.read()
    with log.open("a") as file:
        file.write("two\n")
    rotated = log.rename(log.with_name("0.log.20261123-110000"))
    rotated.with_name(f"{rotated.name}.gz").write_bytes(b"\x1f\x8b\xff")
    log.write_text("three\n")
    assert sorted(logs.text().split()) == ["one", "three", "two"]


@pytest.mark.usefixtures("log")
def test_the_pods_of_other_namespaces_are_not_read(tmp_path: Path) -> None:
    assert ContainerLogs([tmp_path], "ho").text() == ""
