"""Samplers pick the parameters of a new trial."""

from halvard.samplers.cube import CubeSampler
from halvard.samplers.grid import Grid
from halvard.samplers.random import Random
from halvard.samplers.sampler import Proposal, Sampler, Tried
from halvard.samplers.sobol import Sobol
from halvard.samplers.tpe import Tpe
from halvard.study import StudySpec

__all__ = ["Proposal", "Sampler", "Tried", "make_sampler"]


def make_sampler(spec: StudySpec) -> Sampler:
    """Returns the study's sampler; raises ValueError where `spec.sampler` names none."""
    if spec.sampler.grid is not None:
        return Grid(spec)
    if spec.sampler.random is not None:
        return CubeSampler(spec, Random(len(spec.parameters), spec.seed))
    if spec.sampler.sobol is not None:
        return CubeSampler(spec, Sobol(len(spec.parameters), spec.seed))
    if spec.sampler.tpe is not None:
        return CubeSampler(spec, Tpe(spec))
    raise ValueError("spec.sampler needs one of random, sobol, grid and tpe")
