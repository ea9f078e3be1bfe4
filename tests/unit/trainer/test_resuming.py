"""What an attempt goes on from: what was acknowledged, or is older, and never what came after that."""

from pathlib import Path

import pytest

from halvard_trainer.checkpoints import damage, save
from halvard_trainer.resuming import NOTE, note, usable


def write(path: Path) -> None:
    path.write_text("weights")


def spoil(checkpoint: Path) -> None:
    checkpoint.write_text("weighty")


@pytest.fixture(params=["", "checkpoints"], ids=["in a Pod", "on one machine"])
def attempts(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path, Path]:
    """The directories of three attempts, one that saved 2, 3, 4 and 5, one that went on from its 3, and so on.

    Of the first, 4 and 5 were saved when nobody believed it any more.
    """
    names = ("attempt-1-aaaa", "attempt-2-bbbb", "attempt-3-cccc")
    first, second, third = (tmp_path / "attempt-9" / "trial" / name / request.param for name in names)
    for directory, steps in ((first, (2, 3, 4, 5)), (second, (4, 5, 9)), (third, (6,))):
        for step in steps:
            save(directory, step, write)
    note(second, first / "step-3", 3)
    note(third, second / "step-5", 5)
    return first, second, third


def test_the_one_that_is_named_is_used(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    named, _ = save(tmp_path, 3, write), save(tmp_path, 4, write)
    assert usable(named, 3) == (named, 3)
    assert capfd.readouterr().err == ""


def test_a_leg_that_resumes_from_nothing_looks_for_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert usable(None, 0) == (None, 0)
    assert capfd.readouterr().err == ""


def test_what_was_damaged_is_not_used_and_the_reason_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, named = (save(tmp_path, step, write) for step in (2, 3))
    spoil(named)
    assert usable(named, 3) == (before, 2)
    said = capfd.readouterr().err.splitlines()
    assert said == [
        f"halvard: checkpoint {named} is not used: {damage(named)}",
        f"halvard: going on from checkpoint {before}",
    ]


def test_where_all_are_damaged_it_starts_over_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):
        spoil(save(tmp_path, step, write))
    assert usable(tmp_path / "step-2", 2) == (None, 0)
    assert capfd.readouterr().err.splitlines()[-1] == "halvard: starting over"


def test_one_that_is_gone_gives_way_to_an_older_one_never_to_a_newer_one(tmp_path: Path) -> None:
    for step in (3, 4, 6, 7):
        save(tmp_path, step, write)
    for name in ("step-4.tmp", "step-x", "epoch-4", "step-"):
        (tmp_path / name).write_text("something")
    assert usable(tmp_path / "step-5", 5) == (tmp_path / "step-4", 4)


def test_the_way_back_leads_past_what_earlier_attempts_saved_when_nobody_believed_them(
    attempts: tuple[Path, Path, Path],
) -> None:
    first, second, third = attempts
    way = [(second / "step-5", 5), (second / "step-4", 4), (first / "step-3", 3), (first / "step-2", 2), (None, 0)]
    spoil(third / "step-6")
    for path, step in way:
        assert usable(third / "step-6", 6) == (path, step)
        if path:
            spoil(path)


def test_without_a_note_only_the_attempt_named_is_looked_through(attempts: tuple[Path, Path, Path]) -> None:
    first, second, _ = attempts
    (second / NOTE).unlink()
    for step in (4, 5):
        spoil(second / f"step-{step}")
    assert usable(second / "step-5", 5) == (None, 0)
    assert damage(first / "step-3") == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"checkpoint": 3, "step": 3}',
        '{"checkpoint": "x"}',
        '{"checkpoint": "attempt-2-bbbb/step-5", "step": 5}',
    ],
)
def test_a_note_that_leads_nowhere_is_passed_over(tmp_path: Path, text: str) -> None:
    directory = tmp_path / "attempt-2-bbbb"
    spoil(save(directory, 5, write))
    (directory / NOTE).write_text(text)
    assert usable(directory / "step-5", 5) == (None, 0)


def test_the_first_note_stays_and_there_is_none_outside_of_attempts(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    note(mine, tmp_path / "step-3", 3)
    assert not mine.exists()
    for step in (3, 4):
        note(mine, tmp_path / "attempt-1" / "checkpoints" / f"step-{step}", step)
    assert (mine / NOTE).read_text() == '{"checkpoint": "attempt-1/checkpoints/step-3", "step": 3}'
