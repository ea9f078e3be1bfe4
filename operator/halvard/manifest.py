"""YAML as kubectl reads it: a manifest means the same on a laptop as in a cluster.

PyYAML alone takes `1e-5` and `n` for text (not a number, not false), `1:30` for ninety and `2026-01-01` for a date.
"""

import re
from typing import Any

import yaml

TRUE = ("y", "yes", "true", "on")
FALSE = ("n", "no", "false", "off")


class _Loader(yaml.SafeLoader):
    """The safe loader with kubectl's idea of what a plain word is."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # as in the base


def _resolve(tag: str, pattern: str, first: list[str]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)


words = "|".join(form for word in TRUE + FALSE for form in (word, word.capitalize(), word.upper()))
_resolve("bool", words, [*"yYnNtTfFoO"])
_resolve("null", "~|null|Null|NULL|", [*"~nN", ""])
_resolve("int", "[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", [*"-+0123456789"])
_resolve("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", [*"-+.0123456789"])
_resolve("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", [*"-+."])
_resolve("merge", "<<", [*"<"])


def load(text: str) -> Any:
    """Returns the one document of a YAML text; raises yaml.YAMLError where it is none, or more than one."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506  # a safe loader


def _boolean(_: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() in TRUE


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    """One that 64 bits do not hold is a number like any other, as in the API server's JSON."""
    number = loader.construct_yaml_int(node)
    return number if -(2**63) <= number < 2**63 else float(str(number))


_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
