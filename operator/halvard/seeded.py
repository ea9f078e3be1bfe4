"""Random numbers that depend on the study's seed and on what they are for, and on nothing else."""

import numpy as np


def sequence(seed: int, *key: int) -> np.random.SeedSequence:
    """Returns the source of random numbers for one purpose; any integer is a seed, and no two seeds share a source."""
    entropy = 2 * seed if seed >= 0 else -2 * seed - 1  # numpy wants it non-negative
    return np.random.SeedSequence(entropy, spawn_key=key)


def generator(seed: int, *key: int) -> np.random.Generator:
    """Returns a generator at the start of such a sequence."""
    return np.random.default_rng(sequence(seed, *key))
