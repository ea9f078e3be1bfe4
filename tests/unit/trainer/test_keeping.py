"""Which checkpoints an attempt removes."""

from pathlib import Path

import pytest

from halvard_trainer import checkpoints, keeping
from halvard_trainer.keeping import Kept


def save(kept: Kept, directory: Path, *steps: int) -> None:
    for step in steps:
        kept.reported(step, checkpoints.save(directory, step, lambda path: path.write_text("weights")))


def steps(directory: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in directory.glob("step-?"))


def test_all_stay_while_nothing_is_acknowledged(tmp_path: Path) -> None:
    save(Kept(tmp_path / "acknowledged.json"), tmp_path / "own", 1, 2, 3, 4, 5)
    assert steps(tmp_path / "own") == [1, 2, 3, 4, 5]


def test_the_last_two_that_are_acknowledged_stay_and_all_that_came_after(tmp_path: Path) -> None:
    file, own = tmp_path / "acknowledged.json", tmp_path / "own"
    kept = Kept(file)
    save(kept, own, 1, 2, 3, 4, 5)
    file.write_text('{"step": 4}')
    save(kept, own, 6)
    assert steps(own) == [3, 4, 5, 6]
    file.write_text('{"step": 6}')
    save(kept, own, 7)
    assert steps(own) == [5, 6, 7]
    assert len(list(own.iterdir())) == 6  # with their sums


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"step": null}', '{"step": "x"}'])
def test_nothing_is_removed_where_the_sidecar_says_nothing_sensible(tmp_path: Path, text: str) -> None:
    (tmp_path / "acknowledged.json").write_text(text)
    save(Kept(tmp_path / "acknowledged.json"), tmp_path / "own", 1, 2, 3, 4)
    assert steps(tmp_path / "own") == [1, 2, 3, 4]


def test_on_one_machine_what_was_reported_a_while_ago_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(None)
    save(kept, tmp_path, 1, 2, 3, 4)
    assert steps(tmp_path) == [1, 2, 3, 4]
    monkeypatch.setattr(keeping, "READ_WITHIN", 0.0)
    save(kept, tmp_path, 5)
    assert steps(tmp_path) == [4, 5]
