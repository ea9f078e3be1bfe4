"""Shapes that a document may have: what no shape names is a fault, in words. Pure.

They know nothing of Pods; `halvard.allowed` makes the tree of what a Pod template may ask for out of them.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from typing_extensions import override

Allow = frozenset[str]
"""What whoever runs Halvard has opened: entries such as `hostNetwork` or `nodeName=gpu-1`."""

Fault = tuple[str, str]
"""Where below the value something is wrong, such as `.spec.volumes[0].nfs`, and what."""

_SCALARS = (str, int, float)  # a boolean is an int
_LONGEST = 60
_TYPO = 0.85  # how alike two names are where one of them is the other misspelt


@dataclass(frozen=True, slots=True)
class Word:
    """What an entry of `allow` may be: `name`, or `name=value` with one of `values`, or both where `alone`."""

    name: str
    values: str = ""  # a regular expression
    alone: bool = True
    form: str = ""  # as people write it, where that is not the name alone

    @override
    def __str__(self) -> str:
        """As people write it."""
        return self.form or self.name

    def takes(self, entry: str) -> bool:
        """Whether this is an entry with this word."""
        name, equals, value = entry.partition("=")
        return name == self.name and (bool(value and re.fullmatch(self.values, value)) if equals else self.alone)

    def opens(self, value: object, allow: Allow) -> bool:
        """Whether the value is open."""
        return self.name in allow or f"{self.name}={value}" in allow

    def entry(self, value: object) -> str:
        """Returns the entry that would open the value."""
        return f"{self.name}={value}" if self.values and re.fullmatch(self.values, str(value)) else self.name


class Shape(Protocol):
    """A value that is allowed."""

    def faults(self, value: Any, allow: Allow) -> Iterator[Fault]:
        """Yields what is wrong with the value."""


@dataclass(frozen=True, slots=True)
class Only:
    """A rule for a scalar: one of these and of the same type. Those that mean nothing are not proposed."""

    values: tuple[str | int, ...]

    def __call__(self, value: object) -> str:
        """Returns what would be right, nothing where the value is."""
        if any(type(value) is type(right) and value == right for right in self.values):
            return ""
        return " or ".join(f'"{right}"' for right in self.values if right) or "leave it out"


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a number or a boolean; `instead` says what would be right where the value is not."""

    instead: Callable[[Any], str] | None = None
    word: Word | None = None

    def faults(self, value: Any, allow: Allow) -> Iterator[Fault]:
        """Yields at most one."""
        if not isinstance(value, _SCALARS):
            yield "", refused(value, "one text, number or boolean belongs here")
        elif self.instead and (right := self.instead(value)) and not (self.word and self.word.opens(value, allow)):
            yield "", refused(value, right, self.word)


@dataclass(frozen=True, slots=True)
class Items:
    """A list of any length."""

    item: Shape

    def faults(self, value: Any, allow: Allow) -> Iterator[Fault]:
        """Yields what is wrong with each item."""
        if not isinstance(value, list):
            yield "", refused(value, "a list belongs here")
            return
        for place, item in enumerate(value):
            for path, message in self.item.faults(item, allow):
                yield f"[{place}]{path}", message


@dataclass(frozen=True, slots=True)
class Entries:
    """An object whose keys the user chooses, each with a scalar; `instead` sees key and value."""

    instead: Callable[[str, Any], str] | None = None
    word: Word | None = None

    def faults(self, value: Any, allow: Allow) -> Iterator[Fault]:
        """Yields what is wrong with each entry."""
        if not isinstance(value, dict):
            yield "", refused(value, "an object belongs here")
            return
        for key, item in value.items():
            if not isinstance(item, _SCALARS):
                yield f"[{key}]", refused(item, "one text, number or boolean belongs here")
            elif (
                self.instead and (right := self.instead(key, item)) and not (self.word and self.word.opens(item, allow))
            ):
                yield f"[{key}]", refused(item, right, self.word)


@dataclass(frozen=True, slots=True)
class Fields:
    """An object with these fields and no others; null is as good as absent. `instead` sees the whole object."""

    fields: Mapping[str, Shape]
    instead: Callable[[Mapping[str, Any]], str] | None = None
    word: Word | None = None

    def faults(self, value: Any, allow: Allow) -> Iterator[Fault]:
        """Yields what is wrong with each field, fields that are not known among them, and with all together."""
        if not isinstance(value, dict):
            yield "", refused(value, "an object belongs here")
            return
        for name, item in value.items():
            if item is None:
                continue
            if name not in self.fields:
                meant = get_close_matches(name, self.fields, 1, _TYPO)
                yield f".{name}", refused(item, f"leave it out, or write {meant[0]}" if meant else "leave it out")
                continue
            for path, message in self.fields[name].faults(item, allow):
                yield f".{name}{path}", message
        if self.instead and (right := self.instead(value)) and not (self.word and self.word.name in allow):
            yield "", refused(value, right, self.word)


@dataclass(frozen=True, slots=True)
class Opened:
    """A shape that is there only where the word (with the value, if any) is in `allow`."""

    word: Word
    shape: Shape
    value: str = ""

    def faults(self, value: Any, allow: Allow) -> Iterator[Fault]:
        """Yields what is wrong with the value, or that it is there at all."""
        if self.word.opens(self.value, allow):
            yield from self.shape.faults(value, allow)
        else:
            yield "", refused(value, "leave it out", self.word, self.value)


def refused(value: object, right: str, word: Word | None = None, wanted: object = None) -> str:
    """Returns the words for a value that is not allowed, what would be right, and which entry would open it."""
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    message = f"{shown} is not allowed here; {right}"
    if not word:
        return message
    entry = word.entry(value if wanted is None else wanted)
    return f'{message}, or ask whoever runs Halvard to add "{entry}" to the chart\'s value "allow"'
