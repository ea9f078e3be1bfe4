"""Reading a file while it grows, is replaced, or shrinks."""

from pathlib import Path

import pytest

from halvard_trainer.reports import MAX_LINE, Line, Tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reports.jsonl"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def texts(tail: Tail, *, last: bool = False) -> list[str]:
    return [line.text for line in tail.lines(last=last)]


def test_a_file_that_is_not_there_yet_has_no_lines(path: Path) -> None:
    tail = Tail(path)
    assert texts(tail) == []
    append(path, "one\n")
    assert texts(tail) == ["one"]


def test_only_new_lines_are_read(path: Path) -> None:
    tail = Tail(path)
    append(path, "one\ntwo\n")
    assert texts(tail) == ["one", "two"]
    append(path, "three\n")
    assert texts(tail) == ["three"]
    assert texts(tail) == []


def test_a_line_is_read_once_it_is_complete(path: Path) -> None:
    tail = Tail(path)
    append(path, "o")
    assert texts(tail) == []
    append(path, "ne\ntw")
    assert texts(tail) == ["one"]
    append(path, "o\n")
    assert texts(tail) == ["two"]


def test_the_last_line_needs_no_newline(path: Path) -> None:
    tail = Tail(path)
    append(path, "one\ntwo")
    assert texts(tail, last=True) == ["one", "two"]
    assert texts(tail, last=True) == []


def test_a_line_ends_where_another_tail_goes_on(path: Path) -> None:
    append(path, "één\ntwo\nthree")
    lines = list(Tail(path).lines(last=True))
    assert lines == [Line("één", 6), Line("two", 10), Line("three", 15)]
    assert [texts(Tail(path, line.end), last=True) for line in lines] == [["two", "three"], ["three"], []]


def test_a_file_that_shrank_is_read_from_its_beginning(path: Path) -> None:
    tail = Tail(path)
    append(path, "one\ntwo\n")
    assert texts(tail) == ["one", "two"]
    path.write_text("new\n")
    assert texts(tail) == ["new"]


def test_a_replaced_file_is_read_from_its_beginning(path: Path) -> None:
    tail = Tail(path)
    append(path, "one\n")
    assert texts(tail) == ["one"]
    (path.parent / "other").write_text("three\nfour\nfive\n")
    (path.parent / "other").rename(path)
    assert texts(tail) == ["three", "four", "five"]


def test_a_removed_file_has_no_more_lines(path: Path) -> None:
    tail = Tail(path)
    append(path, "one\n")
    assert texts(tail) == ["one"]
    path.unlink()
    assert texts(tail) == []


def test_an_offset_beyond_the_end_means_another_file(path: Path) -> None:
    append(path, "one\n")
    assert texts(Tail(path, 1000)) == ["one"]


def test_of_a_line_without_end_only_the_end_is_kept(path: Path) -> None:
    tail = Tail(path)
    append(path, "a" * 300_000)
    assert texts(tail) == []
    append(path, "b" * 10 + "\nnext\n")
    long, following = texts(tail)
    assert long == "a" * (MAX_LINE + 1 - 10) + "b" * 10
    assert following == "next"


def test_bytes_that_are_no_text_are_replaced(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\nok\n")
    assert texts(Tail(path)) == ["\ufffd\ufffd", "ok"]


def test_lines_arrive_whole_however_they_fall_on_the_chunks(path: Path) -> None:
    expected = [f"{i}" + "x" * (i % 97) for i in range(5000)]
    append(path, "\n".join(expected) + "\n")
    assert texts(Tail(path)) == expected
