"""Bad input in the API server's words: which field, which value, and what would be right.

`parse` checks a manifest in the order the API server does: unknown fields, then the schema, then the rules that span
fields. The schema is a pydantic model; the rules sit beside the fields, as the CEL rules do in the CRD.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

Data = TypeVar("Data", bound=BaseModel)

UNKNOWN = "unknown field"

WORDS = {
    "missing": "Required value",
    "duplicate": "Duplicate value: {value}",
    "literal_error": "Unsupported value: {value}: supported values: {supported}",
    "too_long": "Too many: {actual_length}: must have at most {max_length} items",
    "too_short": "Invalid value: {actual_length}: {path} in body should have at least {min_length} items",
    "string_too_long": "Too long: may not be more than {max_length} bytes",
    "string_too_short": "Invalid value: {value}: {path} in body should be at least {min_length} chars long",
    "string_pattern_mismatch": "Invalid value: {value}: {path} in body should match '{pattern}'",
    "greater_than": "Invalid value: {value}: {path} in body should be greater than {gt:.16g}",
    "greater_than_equal": "Invalid value: {value}: {path} in body should be greater than or equal to {ge:.16g}",
    "less_than_equal": "Invalid value: {value}: {path} in body should be less than or equal to {le:.16g}",
}
"""What the API server says where pydantic reports an error of this type."""

WRONG_TYPE = 'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
QUOTE = " (y, n, yes, no, on and off are booleans in YAML, unless they are quoted)"
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", type(None): "null"}
WANTED = {
    "bool_type": "boolean",
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "string_type": "string",
    "tuple_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "mapping_type": "object",
}
SCALARS = ("str", "int", "float", "bool")
PARAMETERS = ("spec", "parameters")  # whose items have fields of such names


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong, and where; `field` is a path such as `spec.parameters[0].float`."""

    field: str
    message: str

    @override
    def __str__(self) -> str:
        """The line the API server would print."""
        return f'unknown field "{self.field}"' if self.message == UNKNOWN else f"{self.field}: {self.message}"


class InvalidStudy(Exception):  # noqa: N818  # the state of a Study, not an error of Halvard
    """Raised for a manifest that is no valid Study; `errors` holds everything that is wrong with it."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        """Keeps the errors in order, each once."""
        self.errors = tuple(dict.fromkeys(errors))
        super().__init__("\n".join(map(str, self.errors)))


@dataclass(frozen=True, slots=True)
class Rule:
    """What a schema cannot say about a value; the CRD holds the same rule in CEL, with the same message.

    What the fields are that it `tells` only we can add: a message with values in it is too dear for the API server.
    """

    field: str
    message: str
    holds: Callable[[Any], bool]
    tells: tuple[str, ...] = ()

    def words(self, value: BaseModel) -> str:
        """The message, and those values."""
        fields = type(value).model_fields
        told = (f"{fields[name].alias or name} is {getattr(value, name):.16g}" for name in self.tells)
        return ": ".join(filter(None, (self.message, ", ".join(told))))


@dataclass(frozen=True, slots=True)
class Check:
    """What CEL cannot see either: yields the field below the value and what is wrong with it."""

    find: Callable[[Any], Iterator[tuple[str, str]]]


def rule(message: str, *, field: str = "", tells: tuple[str, ...] = ()) -> Callable[[Callable[[Any], bool]], Rule]:
    """Makes a rule of a model from a method that tells whether it holds; `field` is the one to name in the error.

    `tells`: the fields, all of them numbers, whose values are told.
    """
    return lambda holds: Rule(field, message, holds, tells)


def parse(model: type[Data], manifest: Mapping[str, Any], extra: Literal["ignore"] | None = None) -> Data:
    """Returns the manifest as a value of the model, types as strict as the API server's; raises InvalidStudy.

    `extra`: whether to pass over fields that are not known.
    """
    try:
        text = json.dumps(_as_sent(manifest), default=_plain)
        parsed = model.model_validate_json(text, strict=True, extra=extra, by_alias=True, by_name=False)
    except ValidationError as error:
        _refuse(error)
    if errors := tuple(_broken(parsed, "")):
        raise InvalidStudy(errors)
    return parsed


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's scalars are the values they hold, the rest is text, such as a date."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _as_sent(value: Any) -> Any:
    """The value as kubectl and the API server pass it on: whole numbers are integers, and a null is no field at all."""
    if isinstance(value, Mapping):
        return {key: _as_sent(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_as_sent(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


def _refuse(error: ValidationError) -> NoReturn:
    details = [detail for detail in error.errors(include_url=False) if not _misleading(detail, error)]
    unknown = [FieldError(_path(detail["loc"]), UNKNOWN) for detail in details if detail["type"] == "extra_forbidden"]
    raise InvalidStudy(unknown + [_worded(detail) for detail in details if detail["type"] != "extra_forbidden"])


def _misleading(detail: ErrorDetails, error: ValidationError) -> bool:
    """Whether pydantic calls a list too short only because its items are wrong."""
    place = detail["loc"]
    inside = (other["loc"] for other in error.errors(include_url=False) if len(other["loc"]) > len(place))
    return detail["type"] == "too_short" and any(other[: len(place)] == place for other in inside)


def _broken(value: BaseModel, path: str) -> Iterator[FieldError]:
    """Yields every rule that the value or a value inside it breaks."""
    for attribute in [attribute for kind in type(value).__mro__ for attribute in vars(kind).values()]:
        if isinstance(attribute, Rule) and not attribute.holds(value):
            yield FieldError(_join(path, attribute.field), f'Invalid value: "object": {attribute.words(value)}')
        elif isinstance(attribute, Check):
            for field, message in attribute.find(value):
                yield FieldError(_join(path, field), f"Invalid value: {message}")
    for name, info in type(value).model_fields.items():
        inner = getattr(value, name)
        for suffix, item in _numbered(inner) if isinstance(inner, tuple) else [("", inner)]:
            if isinstance(item, BaseModel):
                yield from _broken(item, _join(path, info.alias or name) + suffix)


def _numbered(items: tuple[Any, ...]) -> list[tuple[str, Any]]:
    return [(f"[{index}]", item) for index, item in enumerate(items)]


def _join(path: str, field: str) -> str:
    return ".".join(part for part in (path, field) if part)


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _worded(error: ErrorDetails) -> FieldError:
    """One error of pydantic in the words of the API server's schema validation."""
    location, given, context = error["loc"], error["input"], error.get("ctx", {})
    wanted = WANTED.get(error["type"])
    any_scalar = len(location) > 1 and (isinstance(location[-2], int) or "initialPoints" in location[:-2])
    if wanted and any_scalar and location[-1] in SCALARS and location[:-2] != PARAMETERS:
        location, wanted = location[:-1], "string,integer,number,boolean"  # an item of `choice` or `when` may be any
    path = _path(location)
    if wanted:
        got = JSON_TYPES.get(type(given), "object")
        hint = QUOTE if (got, wanted) == ("boolean", "string") else ""
        return FieldError(path, WRONG_TYPE.format(path=path, got=got, wanted=wanted) + hint)
    supported = str(context.get("expected", "")).replace("'", '"').replace(" or ", ", ")
    words = WORDS.get(error["type"], "Invalid value: {value}: {msg}")
    value = json.dumps(given, default=str)
    return FieldError(path, words.format(path=path, value=value, supported=supported, msg=error["msg"], **context))
