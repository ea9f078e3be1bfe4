"""Samplers pick the parameters of a new trial."""

from collections.abc import Callable

from halvard.forecast.forecaster import Forecaster
from halvard.samplers.auto import Auto
from halvard.samplers.bohb import Bohb
from halvard.samplers.cube import CubeSampler, Points
from halvard.samplers.gp import Gp
from halvard.samplers.grid import Grid
from halvard.samplers.model_based import ModelBased
from halvard.samplers.random import Random
from halvard.samplers.sampler import Proposal, Sampler
from halvard.samplers.sobol import Sobol
from halvard.samplers.tpe import Tpe
from halvard.study import StudySpec

__all__ = ["MakeSampler", "Proposal", "Sampler", "make_sampler"]


MakeSampler = Callable[[Forecaster], Sampler]
"""Makes a sampler that learns from this forecaster too."""


def make_sampler(spec: StudySpec, forecaster: Forecaster) -> Sampler:
    """Returns the study's sampler; `auto` learns from `forecaster`, which is told of the trials by whoever has it too.

    Raises ValueError where `spec.sampler` names none.
    """
    if spec.sampler.grid is not None:
        return Grid(spec)
    return CubeSampler(spec, _points(spec, forecaster))


def _points(spec: StudySpec, forecaster: Forecaster) -> Points:
    if spec.sampler.random is not None:
        return Random(len(spec.parameters), spec.seed)
    if spec.sampler.sobol is not None:
        return Sobol(len(spec.parameters), spec.seed)
    if spec.sampler.tpe is not None:
        return ModelBased(spec, Tpe(spec))
    if spec.sampler.auto is not None:
        return Auto(spec, forecaster)
    if spec.sampler.bohb is not None:
        return ModelBased(spec, Bohb(spec))
    if spec.sampler.gp is not None:
        return ModelBased(spec, Gp(spec))
    raise ValueError("spec.sampler names no sampler")
