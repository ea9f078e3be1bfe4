"""What both custom resources are made of: the base of their models, parameter values, names."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from halvard.invalid import Check, Rule

Value = str | int | float | bool
"""One value of one parameter."""

LARGEST = 2**53 - 1
"""The largest integer that every JSON parser keeps exactly."""

SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)


class Model(BaseModel):
    """A frozen value written in camelCase, which refuses fields it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        ignored_types=(Rule, Check),
    )


def distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Returns the values as they are; raises ValidationError where one comes twice (1 and true are two values)."""
    typed = [(type(value), value) for value in values]
    twice = [
        InitErrorDetails(type=PydanticCustomError("duplicate", "Duplicate value"), loc=(place,), input=values[place])
        for place, value in enumerate(typed)
        if value in typed[:place]
    ]
    if twice:
        raise ValidationError.from_exception_data("values", twice)
    return values


def subdomain(name: str) -> str:
    """Returns the name as it is; raises PydanticCustomError, in the API server's words, where it can name no object."""
    if not re.fullmatch(SUBDOMAIN, name):
        raise PydanticCustomError("subdomain", SUBDOMAIN_MESSAGE)
    return name


Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=256), AfterValidator(distinct)]
"""Some values, each once."""

Name = Annotated[str, Field(max_length=40), AfterValidator(subdomain)]
"""A study's name; its Pods are named <study>-<trial>-<attempt>, and a Pod's host name has at most 63 characters."""
