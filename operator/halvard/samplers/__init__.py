"""Samplers pick the parameters of a new trial."""

from collections.abc import Mapping
from typing import Protocol

from halvard.samplers.grid import Grid
from halvard.samplers.random import Random
from halvard.study import StudySpec, Value


class Sampler(Protocol):
    """Picks parameters as a pure function of the study and the trial's index."""

    def parameters(self, index: int) -> Mapping[str, Value] | None:
        """Returns the active parameters of trial `index`, or None where the search space is exhausted."""


def make_sampler(spec: StudySpec) -> Sampler:
    """Returns the study's sampler; raises ValueError where `spec.sampler` names none."""
    if spec.sampler.random is not None:
        return Random(spec.parameters, spec.seed)
    if spec.sampler.grid is not None:
        return Grid(spec.parameters)
    raise ValueError("spec.sampler needs one of random and grid")
