"""YAML means here what it means to kubectl (each answer below was seen from kubectl 1.34 and an API server)."""

import pytest
import yaml

from halvard.manifest import load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("-.5", -0.5),
        ("1e1", 10.0),
        ("010", 8),
        ("0o10", 8),
        ("09", 9.0),
        ("0x1F", 31),
        ("1_000", 1000),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", 2.0**63),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("n", False),
        ("Y", True),
        ("off", False),
        ("none", "none"),
        ("~", None),
        ("", None),
        ('"1"', "1"),
        ("12h", "12h"),
    ],
)
def test_a_plain_word_is_what_kubectl_takes_it_for(text: str, value: object) -> None:
    read = load(f"key: {text}")["key"]

    assert (type(read), read) == (type(value), value)


def test_a_merge_key_merges() -> None:
    assert load("{a: &a {c: 1}, b: {<<: *a, d: 2}}")["b"] == {"c": 1, "d": 2}


def test_two_documents_are_refused() -> None:
    with pytest.raises(yaml.YAMLError):
        load("a: 1\n---\nb: 2\n")
