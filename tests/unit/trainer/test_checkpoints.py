"""Checkpoints on a real disk: there as a whole, and what damaged them is seen."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard_trainer.checkpoints import Save, damage, remove, save

WEIGHTS = b"weights" * 1000


def one_file(path: Path) -> None:
    path.write_bytes(WEIGHTS)


def two_files(path: Path) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "inner" / "weights").write_bytes(WEIGHTS)


def weights_of(checkpoint: Path) -> Path:
    return checkpoint / "inner" / "weights" if checkpoint.is_dir() else checkpoint


def spoil(checkpoint: Path) -> None:
    file = weights_of(checkpoint)
    file.write_bytes(WEIGHTS[:5000] + b"?" + WEIGHTS[5001:])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": remove,
    "emptied": lambda path: os.truncate(weights_of(path), 0),
    "truncated": lambda path: os.truncate(weights_of(path), 4096),
    "longer": lambda path: weights_of(path).write_bytes(WEIGHTS + b"more"),
    "corrupt": spoil,
    "sums cut off": lambda path: os.truncate(path.with_name("step-3.sums"), 10),
    "sums of another kind": lambda path: path.with_name("step-3.sums").write_text("[1, 2]"),
}


@pytest.fixture(params=[one_file, two_files])
def write(request: pytest.FixtureRequest) -> Save:
    wanted: Save = request.param
    return wanted


def test_what_was_saved_is_sound_until_it_is_removed(tmp_path: Path, write: Save) -> None:
    saved = save(tmp_path, 3, write)
    assert damage(saved) == ""
    remove(saved)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", DAMAGES)
def test_what_was_damaged_is_known(tmp_path: Path, write: Save, what: str) -> None:
    saved = save(tmp_path, 3, write)
    DAMAGES[what](saved)
    assert damage(saved) != ""


def test_a_file_that_is_missing_from_a_directory_is_damage(tmp_path: Path) -> None:
    named = save(tmp_path, 3, two_files)
    (named / "config.json").unlink()
    assert damage(named) == "config.json has 0 bytes, not 2"


@given(place=st.integers(0, len(WEIGHTS) - 1), byte=st.integers(0, 255))
def test_a_single_byte_that_differs_is_damage(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    saved = save(tmp_path_factory.getbasetemp() / "bytes", 3, one_file)
    saved.write_bytes(WEIGHTS[:place] + bytes([byte]) + WEIGHTS[place + 1 :])
    assert damage(saved) == ("" if byte == WEIGHTS[place] else "it is corrupt")


def test_a_checkpoint_may_be_an_empty_file(tmp_path: Path) -> None:
    saved = save(tmp_path, 3, Path.touch)
    assert damage(saved) == ""
    saved.unlink()
    assert damage(saved).startswith("it cannot be read: ")


def test_an_empty_directory_is_none(tmp_path: Path) -> None:
    assert damage(save(tmp_path, 3, Path.mkdir)) == "it is missing or empty"


def test_one_without_sums_only_has_to_hold_something(tmp_path: Path) -> None:
    named = tmp_path / "epoch-3.pt"
    named.write_text("saved by somebody else")
    assert damage(named) == ""
    named.write_text("")
    assert damage(named) == "it is missing or empty"
