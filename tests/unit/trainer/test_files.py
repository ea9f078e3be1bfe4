"""Files that somebody else reads meanwhile."""

from pathlib import Path

import pytest

from halvard_trainer import files


@pytest.mark.parametrize("text", ["", "{}", '{"step": 3}', "é" * 100])
@pytest.mark.parametrize("before", ["", '{"step": 12}', "x" * 4096])
def test_a_file_that_is_there_is_overwritten(tmp_path: Path, before: str, text: str) -> None:
    path = tmp_path / "termination-log"
    path.write_text(before)
    assert files.overwrite(path, text)
    assert path.read_text() == text


def test_a_file_that_is_not_there_stays_so(tmp_path: Path) -> None:
    assert not files.overwrite(tmp_path / "termination-log", "text")
    assert list(tmp_path.iterdir()) == []
