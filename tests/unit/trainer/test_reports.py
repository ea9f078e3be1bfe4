"""Report lines, the wire form, patterns on stdout and the termination message."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard_trainer.reports import (
    MAX_LINE,
    MAX_STEP,
    Pattern,
    Report,
    from_wire,
    parse_line,
    termination_message,
    to_wire,
)


def test_a_line_is_a_step_a_checkpoint_and_metrics() -> None:
    line = '{"step": 3, "val_loss": 0.21, "epochs": 2, "checkpoint": "step-3"}'
    assert parse_line(line) == Report(3, {"val_loss": 0.21, "epochs": 2.0}, "step-3")


@pytest.mark.parametrize(
    "line", ['{"step": 1, "a": 1}', ' {"step":1,"a":1.0,"checkpoint":null}\r', '{"a":1,"step":1,"checkpoint":""}']
)
def test_a_checkpoint_is_optional(line: str) -> None:
    assert parse_line(line) == Report(1, {"a": 1.0}, "")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ('"Infinity"', math.inf),
        ('"-Infinity"', -math.inf),
        ("1e999", math.inf),
    ],
)
def test_infinities_are_numbers_bare_and_as_strings(text: str, number: float) -> None:
    assert parse_line(f'{{"step": 1, "loss": {text}}}').metrics == {"loss": number}


@pytest.mark.parametrize("text", ["NaN", '"NaN"'])
def test_nan_is_a_number_bare_and_as_a_string(text: str) -> None:
    assert math.isnan(parse_line(f'{{"step": 1, "loss": {text}}}').metrics["loss"])


BAD_LINES = {
    "nonsense": "not JSON",
    "": "not JSON",
    '{"step": 1': "not JSON",
    "[" * 10_000: "not JSON",
    "[1, 2]": "not a JSON object: [1, 2]",
    "3": "not a JSON object: 3",
    '{"loss": 1}': "step: missing",
    '{"step": null}': "step: missing",
    '{"step": 0}': "step: must be a whole number from 1, not 0",
    '{"step": -4}': "step: must be a whole number from 1, not -4",
    '{"step": 1.5}': "step: must be a whole number from 1, not 1.5",
    '{"step": true}': "step: must be a whole number from 1, not True",
    '{"step": "3"}': "step: must be a whole number from 1, not '3'",
    '{"step": NaN}': "step: must be a whole number from 1, not nan",
    f'{{"step": {MAX_STEP + 1}}}': "is too large",
    '{"step": 1, "loss": "low"}': "metric 'loss': must be a number, not 'low'",
    '{"step": 1, "loss": true}': "metric 'loss': must be a number, not True",
    '{"step": 1, "loss": null}': "metric 'loss': must be a number, not None",
    '{"step": 1, "loss": [1]}': "metric 'loss': must be a number, not [1]",
    '{"step": 1, "loss": ' + "9" * 400 + "}": "metric 'loss': the number is too large",
    '{"step": 1, "": 1}': "metric '': a name has 1 to 128 printable characters",
    '{"step": 1, "a\\nb": 1}': "metric 'a\\nb': a name has",
    '{"step": 1, "\\ud800": 1}': "metric '\\ud800': a name has",
    json.dumps({"step": 1, "a" * 129: 1}): "a name has 1 to 128",
    json.dumps({"step": 1, **{f"m{i}": i for i in range(65)}}): "65 metrics; at most 64",
    json.dumps({"step": 1, "loss": 1, "note": "x" * MAX_LINE}): "bytes or more; at most 16384 are read",
    '{"step": 1, "checkpoint": 3}': "checkpoint: must be a name",
    '{"step": 1, "checkpoint": "a/b"}': 'checkpoint: must be a plain name without "/"',
    '{"step": 1, "checkpoint": ".."}': "checkpoint: must be a plain name",
    '{"step": 1, "checkpoint": "."}': "checkpoint: must be a plain name",
    '{"step": 1, "checkpoint": "a\\u0000"}': "checkpoint: must be a name",
    json.dumps({"step": 1, "checkpoint": "c" * 129}): "checkpoint: must be a name of at most 128",
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_a_bad_line_is_refused_with_what_is_wrong(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_line(line)
    assert len(str(caught.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
)
NEARLY_REPORTS = st.fixed_dictionaries(
    {"step": st.integers() | JSON}, optional={"checkpoint": st.text(max_size=10) | JSON, "loss": st.floats() | JSON}
)


@given(
    st.text()
    | JSON.map(json.dumps)
    | NEARLY_REPORTS.map(json.dumps)
    | st.binary().map(lambda b: b.decode(errors="replace"))
)
def test_any_text_is_a_report_or_a_value_error_and_every_report_survives_the_wire(text: str) -> None:
    try:
        report = parse_line(text)
    except ValueError:
        return
    wire = json.dumps(to_wire(report), allow_nan=False).encode()
    assert repr(from_wire(json.loads(wire))) == repr(report)


@pytest.mark.parametrize(
    "value", [None, 3, [], {"step": 1, "metrics": [1]}, {"metrics": {}}, {"step": 1, "metrics": {"a": "b"}}]
)
def test_a_bad_wire_form_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"object|step|metric"):
        from_wire(value)


def test_the_wire_form_is_strict_json() -> None:
    report = Report(3, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5}, "step-3")
    assert to_wire(report) == {
        "step": 3,
        "metrics": {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.5},
        "checkpoint": "step-3",
    }


def test_a_termination_message_that_is_too_large_keeps_the_objective() -> None:
    metrics = {f"metric-{i}": float(i) for i in range(64)}
    text = termination_message(Report(3, {**metrics, "val_loss": 0.5}, "step-3"), 200, "val_loss")
    assert len(text.encode()) <= 200
    kept = from_wire(json.loads(text))
    assert (kept.step, kept.checkpoint, kept.metrics["val_loss"]) == (3, "step-3", 0.5)
    assert len(kept.metrics) > 2


def test_a_termination_message_counts_bytes_not_characters() -> None:
    text = termination_message(Report(1, {"é" * 100: 1.0, "loss": 2.0}), 150, "loss")
    assert json.loads(text) == {"step": 1, "metrics": {"loss": 2.0}}


@pytest.mark.parametrize(
    "line",
    [
        "epoch 3: val_loss=0.25 acc=0.5",
        "\x1b[32mepoch 3\x1b[0m: val_loss=\x1b[1m0.25\x1b[m acc=0.5\r",
        "epoch 1: val_loss=9 acc=0\repoch 2: val_loss=8 acc=0\repoch 3: val_loss=0.25 acc=0.5",
        "\x1b]0;title\x07epoch 3: val_loss=0.25 acc=0.5",
    ],
    ids=["plain", "coloured", "progress bar", "window title"],
)
def test_a_pattern_reads_what_a_terminal_would_show(line: str) -> None:
    pattern = Pattern(r"epoch (?P<step>\d+): val_loss=(?P<val_loss>\S+) acc=(?P<acc>\S+)")
    assert pattern.parse(line) == Report(3, {"val_loss": 0.25, "acc": 0.5})


def test_without_a_step_matching_lines_are_counted_from_the_start() -> None:
    pattern = Pattern(r"loss=(?P<loss>\S+)", start=9)
    reports = [pattern.parse(line) for line in ("loss=3", "something else", "loss=2")]
    assert reports == [Report(10, {"loss": 3.0}), None, Report(11, {"loss": 2.0})]


def test_a_group_that_took_no_part_is_no_metric() -> None:
    pattern = Pattern(r"(?P<step>\d+) loss=(?P<loss>\S+)(?: acc=(?P<acc>\S+))?")
    assert pattern.parse("4 loss=1") == Report(4, {"loss": 1.0})


@pytest.mark.parametrize("text", ["nan", "NaN"])
def test_a_pattern_reads_nan(text: str) -> None:
    report = Pattern(r"loss=(?P<loss>\S+)").parse(f"loss={text}")
    assert report is not None
    assert math.isnan(report.metrics["loss"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("step x loss=1", "step: must be a whole number"),
        ("step 1 loss=low", "metric 'loss'"),
        ("step 0 loss=1", "step: must be"),
    ],
)
def test_a_match_that_is_no_report_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pattern(r"step (?P<step>\S+) loss=(?P<loss>\S+)").parse(line)


@pytest.mark.parametrize(
    ("regex", "message"),
    [("(", "not a regular expression"), ("loss", "no named group"), (r"(?P<step>\d+)", "no named group")],
)
def test_a_pattern_that_cannot_work_is_refused(regex: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pattern(regex)
