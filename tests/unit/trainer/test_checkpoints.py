"""Checkpoints on a real disk: what is damaged is not gone on from, and what is left is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard_trainer.checkpoints import Save, damage, remove, save, usable

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
    assert usable(saved, 3, 9) == (saved, 3)
    remove(saved)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", DAMAGES)
def test_what_was_damaged_is_not_used_and_the_reason_is_said(
    tmp_path: Path, write: Save, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before, named = (save(tmp_path, step, write) for step in (2, 3))
    DAMAGES[what](named)
    assert usable(named, 3, 9) == (before, 2)
    said = capfd.readouterr().err.splitlines()
    assert said == [
        f"halvard: checkpoint {named} is not used: {damage(named)}",
        f"halvard: going on from checkpoint {before}",
    ]


def test_a_file_that_is_missing_from_a_directory_is_damage(tmp_path: Path) -> None:
    named = save(tmp_path, 3, two_files)
    (named / "config.json").unlink()
    assert damage(named) == "config.json has 0 bytes, not 2"


@given(place=st.integers(0, len(WEIGHTS) - 1), byte=st.integers(0, 255))
def test_a_single_byte_that_differs_is_damage(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    saved = save(tmp_path_factory.getbasetemp() / "bytes", 3, one_file)
    saved.write_bytes(WEIGHTS[:place] + bytes([byte]) + WEIGHTS[place + 1 :])
    assert damage(saved) == ("" if byte == WEIGHTS[place] else "it is corrupt")


@pytest.mark.parametrize("inside", ["", "checkpoints"], ids=["in a Pod", "on one machine"])
def test_where_all_of_an_attempt_is_damaged_the_newest_of_earlier_ones_is_taken(tmp_path: Path, inside: str) -> None:
    first, second = (tmp_path / "trial" / name / inside for name in ("attempt-1-aaaa", "attempt-2-bbbb"))
    for directory, steps in ((first, (1, 2)), (second, (3, 4)), (tmp_path / "another" / "attempt-1" / inside, (3,))):
        for step in steps:
            save(directory, step, one_file)
    for step in (3, 4):
        spoil(second / f"step-{step}")
    assert usable(second / "step-4", 4, 9) == (first / "step-2", 2)


def test_where_all_are_damaged_it_starts_over_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):
        spoil(save(tmp_path, step, one_file))
    assert usable(tmp_path / "step-2", 2, 9) == (None, 0)
    assert capfd.readouterr().err.splitlines()[-1] == "halvard: starting over"


def test_one_that_was_removed_since_gives_way_to_the_newest_below_the_budget(tmp_path: Path) -> None:
    for step in (4, 7, 8, 9, 12):
        save(tmp_path, step, one_file)
    for name in ("step-8.tmp", "step-x", "epoch-8", "step-"):
        (tmp_path / name).write_text("something")
    assert usable(tmp_path / "step-5", 5, 9) == (tmp_path / "step-8", 8)


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
    assert usable(named, 3, 9) == (named, 3)
    named.write_text("")
    assert damage(named) == "it is missing or empty"


def test_a_leg_that_resumes_from_nothing_looks_for_nothing() -> None:
    assert usable(None, 0, 9) == (None, 0)
