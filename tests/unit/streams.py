"""Streams of results that schedulers are tried with, by name: (generator, step) to a value."""

import math
from collections.abc import Callable

import numpy as np

VALUES: dict[str, Callable[[np.random.Generator, int], float]] = {
    "normal": lambda rng, _: float(rng.normal()),
    "few levels": lambda rng, _: float(rng.integers(4)),
    "all tied": lambda _, __: 0.5,
    "improving": lambda _, step: -float(step),
    "worsening": lambda _, step: float(step),
    "mostly infinite": lambda rng, _: (
        float(rng.normal()) if rng.random() < 0.25 else float(rng.choice([math.inf, -math.inf]))
    ),
    "some NaN": lambda rng, _: float(rng.normal()) if rng.random() < 0.75 else math.nan,
}
