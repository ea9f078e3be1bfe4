"""What Halvard asks of a study's Pod template; everything else in it is between the user and the API server."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from halvard.model import Model

DEFAULT_GRACE = 30.0  # seconds, as in Kubernetes


class Container(Model, extra="allow"):
    """What Halvard looks at in a container of the template; the API server knows the rest."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    command: Annotated[tuple[str, ...], Field(max_length=1024)] | None = None


class PodSpec(Model, extra="allow"):
    """What Halvard looks at in the template's Pod."""

    containers: Annotated[tuple[Container, ...], Field(min_length=1, max_length=32)]
    restart_policy: Literal["Never"] | None = None


class PodTemplate(Model, extra="allow"):
    """What Halvard looks at in the template."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: PodSpec


def checked_template(template: dict[str, Any]) -> dict[str, Any]:
    """Returns the template as it is; raises ValidationError where it is no PodTemplate."""
    PodTemplate.model_validate_json(json.dumps(template), strict=True)
    return template


def termination_grace(template: Mapping[str, Any]) -> float:
    """Returns the seconds that a trainer has from SIGTERM to SIGKILL."""
    grace = template.get("spec", {}).get("terminationGracePeriodSeconds")
    return float(grace) if isinstance(grace, int) else DEFAULT_GRACE
