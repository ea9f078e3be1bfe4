"""A study outlives its sampler: where that fails, a trial is the one that random search would have tried."""

from collections.abc import Mapping
from dataclasses import replace

from halvard.samplers.cube import CubeSampler
from halvard.samplers.random import Random
from halvard.samplers.sampler import Proposal, Sampler
from halvard.study import StudySpec
from halvard.tried import Tried

LONGEST = 200  # characters of an error that a decision has room for


def propose(sampler: Sampler, spec: StudySpec, index: int, tried: Mapping[int, Tried]) -> Proposal | None:
    """Returns what the sampler proposes for trial `index`, else a random proposal whose `why` says what went wrong."""
    try:
        return sampler.propose(index, tried)
    except Exception as error:  # noqa: BLE001  # whatever a model stumbles over, the study is to go on
        random = CubeSampler(spec, Random(len(spec.parameters), spec.seed)).propose(index, tried)
        if random is None or index < len(spec.initial_points):
            return random
        name = next((name for name, options in spec.sampler if options is not None), "the sampler")
        return replace(random, why=f"new trial: random, as {name} failed: {_first_line(error)}", sampler_failed=True)


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line}"[:LONGEST]
