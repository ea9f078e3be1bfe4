"""`halvard simulate` from the command line: what it prints, what it writes, and what it refuses."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from halvard.cli import main
from halvard.simulate.files import read_table
from halvard.simulate.table import Table
from unit.simulate.conftest import arrays, make_study


class Folder:
    """A manifest and a table in a folder, and the command on them."""

    def __init__(self, path: Path) -> None:
        self.study, self.table, self.output = path / "study.yaml", path / "small.npz", path / "out.jsonl"
        self.write_study()
        np.savez(self.table, **arrays())

    def write_study(self, **spec: Any) -> None:
        written = make_study(**spec).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        manifest = {"apiVersion": "halvard.dev/v1alpha1", "kind": "Study", "metadata": {"name": "s"}, "spec": written}
        self.study.write_text(yaml.safe_dump(manifest))

    def simulate(self, *options: str) -> Result:
        return CliRunner().invoke(main, ["simulate", str(self.study), "--table", str(self.table), *options])


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_it_prints_the_ladder_and_what_it_would_cost(folder: Folder) -> None:
    done = folder.simulate("--workers=4", "--start-up=30s", "--full-training=90m")
    assert done.exit_code == 0
    assert "s  4 workers, 30 s start-up; a full training takes 1:30:00 (median)" in done.output
    assert "all 40 trials are finished or were not promoted" in done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["rung", "completed", "promoted", "running", "not", "finite"] in lines
    assert any(line[:4] == ["1", "40", "13", "·"] for line in lines)
    assert ["trials", "40", "40"] in lines
    [total] = [line[1:] for line in lines if line[:1] == ["worker-hours"] and len(line) == 3]
    assert 0 < float(total[0]) < float(total[1])


def test_a_metric_is_no_markup_whatever_its_name(folder: Folder) -> None:
    folder.write_study(objective={"metric": "[/red]loss", "goal": "minimize"})
    done = folder.simulate("--workers=4")
    assert (done.exit_code, "best [/red]loss" in done.output) == (0, True)


def test_a_study_is_compared_with_every_trial_at_the_full_budget(folder: Folder) -> None:
    done = folder.simulate("--workers=4")
    assert ["asha", "none"] in [line.split() for line in done.output.splitlines()]
    folder.write_study(scheduler={"none": {"budget": 9}})
    assert ["none"] in [line.split() for line in folder.simulate("--workers=4").output.splitlines()]


def test_gpus_are_counted_where_the_template_asks_for_them(folder: Folder) -> None:
    container = {"name": "trainer", "resources": {"limits": {"nvidia.com/gpu": 2}}}
    before = folder.simulate("--workers=4").output
    folder.write_study(template={"spec": {"containers": [container]}})
    after = folder.simulate("--workers=4").output
    hours = [
        float(re.findall(rf"^{unit} +(\S+)", text, re.MULTILINE)[0])
        for unit, text in (("worker-hours", before), ("GPU-hours", after))
    ]
    assert hours[1] == pytest.approx(2 * hours[0], rel=1e-3)


def test_a_limit_beyond_the_tables_rows_is_noted(folder: Folder) -> None:
    folder.write_study(limits={"trials": 61})
    assert folder.simulate().output.startswith("note: limits.trials is 61, but the table has 60 rows: no more are")


def test_a_share_of_a_full_training_is_a_start_up_too(folder: Folder) -> None:
    assert "5:24 start-up" in folder.simulate("--full-training=108m", "--start-up=5%").output


def test_everything_that_happened_is_written_as_json_lines(folder: Folder) -> None:
    assert folder.simulate("--workers=3", f"--output={folder.output}").exit_code == 0
    lines = [json.loads(line) for line in folder.output.read_text().splitlines()]
    first = lines[0]
    trials = lines[1:41]
    assert (first["study"], first["conditions"]["workers"], first["conditions"]["lost_every"]) == ("s", 3, None)
    assert [trial["trial"] for trial in trials] == list(range(40))
    busy = sum(span["ended"] - span["began"] for trial in trials for span in trial["spans"])
    assert busy == pytest.approx(sum(first["busy"].values()))
    assert {decision["trial"] for decision in trials[7]["decisions"]} == {7}


def test_a_table_is_read_as_it_was_saved(folder: Folder) -> None:
    table, given = read_table(folder.table), Table.from_arrays(arrays())
    assert table.names == given.names
    assert all(np.array_equal(getattr(table, n), getattr(given, n), equal_nan=True) for n in ("u", "value", "seconds"))


def test_a_malformed_table_is_refused_with_its_name_and_array(folder: Folder) -> None:
    np.savez(folder.table, **(arrays() | {"seconds": np.ones((60, 3))}))
    done = folder.simulate()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"{folder.table}: seconds: shape (60, 3), but value has (60, 9): they must be the same\n"


@pytest.mark.parametrize("content", [b"", b"no table", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_table_is_refused(folder: Folder, content: bytes) -> None:
    folder.table.write_bytes(content)
    done = folder.simulate()
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{folder.table}: not an npz file that numpy can read: ")


def test_pickled_objects_are_not_read(folder: Folder) -> None:
    np.savez(folder.table, **(arrays() | {"names": np.array(["lr", "width"], dtype=object)}))
    done = folder.simulate()
    assert done.exit_code == 2
    assert f"{folder.table}: not an npz file that numpy can read: Object arrays cannot be loaded" in done.stderr


def npz(flags: int = 0, method: int = 0, **members: bytes) -> bytes:
    """The table's file with some members replaced, its flags (1: encrypted) and compression as they are given."""
    data = io.BytesIO()
    np.savez(data, **arrays())
    with zipfile.ZipFile(data) as file:
        every = {name: file.read(name) for name in file.namelist()} | members
    with zipfile.ZipFile(data := io.BytesIO(), "w") as file:
        for name, content in every.items():
            file.writestr(name, content)
    written = data.getvalue()
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in list(re.finditer(re.escape(mark), written)):
            at = found.start() + place
            written = written[:at] + bytes([flags, 0, method, 0]) + written[at + 4 :]
    return written


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (npz(flags=1), "not an npz file that numpy can read: File 'names.npy' is encrypted"),
        (npz(method=99), "not an npz file that numpy can read: That compression method is not supported"),
        (npz(**{"u.npy": header("{{{'descr'\n")}), "not an npz file that numpy can read: "),
        (
            npz(**{"u.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000)}\n")}),
            "not an npz file that numpy can read: Unable to allocate",
        ),
        (npz(**{"u.npy": b"0.5, 0.7"}), "u: missing; a table has the arrays names, u, value, seconds; this has names,"),
    ],
    ids=["encrypted", "compressed", "garbled", "too large", "text"],
)
def test_a_damaged_table_is_refused_with_its_name(folder: Folder, damaged: bytes, message: str) -> None:
    folder.table.write_bytes(damaged)
    done = folder.simulate()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{folder.table}: {message}")


def test_one_array_alone_is_refused(folder: Folder) -> None:
    np.save(folder.table.with_suffix(".npy"), np.zeros(3))
    folder.table.write_bytes(folder.table.with_suffix(".npy").read_bytes())
    assert "one array alone: must be an npz file of several" in folder.simulate().stderr


def test_a_study_of_other_parameters_is_refused(folder: Folder) -> None:
    folder.write_study(parameters=[{"name": "depth", "int": {"min": 1, "max": 9}}])
    done = folder.simulate()
    assert done.exit_code == 2
    assert done.stderr.startswith("spec.parameters: depth (1), but the table's coordinates are lr, width (2)")


def test_an_output_that_cannot_be_written_is_an_error(folder: Folder) -> None:
    done = folder.simulate(f"--output={folder.output.parent}/nowhere/out.jsonl")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--start-up=6", '"6" is neither a duration such as 30s nor a share such as 6%'),
        ("--start-up=-6%", '"-6%" is neither a duration such as 30s nor a share such as 6%'),
        ("--full-training=0s", '"0s" is no duration such as 90s, 30m or 1h30m'),
        ("--lost-every=soon", '"soon" is no duration such as 90s, 30m or 1h30m'),
        ("--dropped=1", "1.0 is not in the range 0<=x<1"),
        ("--workers=0", "0 is not in the range x>=1"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(folder: Folder, option: str, message: str) -> None:
    done = folder.simulate(option)
    assert done.exit_code == 2
    assert message in done.stderr
