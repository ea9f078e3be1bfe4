"""Sobol's sequence, scrambled by the study's seed: points that fill the space more evenly than random ones.

The direction numbers are the first of new-joe-kuo-6.21201 (S. Joe and F. Y. Kuo, Constructing Sobol sequences with
better two-dimensional projections, SIAM J. Sci. Comput. 30, 2008; copyright (c) 2008 Frances Y. Kuo and Stephen Joe,
BSD licence). The scrambling is Owen's nested uniform one: whether a bit is flipped depends on all bits above it.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from halvard.samplers.cube import Draw
from halvard.samplers.random import Random
from halvard.samplers.sampler import NEW
from halvard.seeded import sequence
from halvard.tried import Tried

BITS = 32
DIMENSIONS = 64

JOE_KUO = """
3:1 7:1,3 11:1,3,1 13:1,1,1 19:1,1,3,3 25:1,3,5,13 37:1,1,5,5,17 41:1,1,5,5,5 47:1,1,7,11,19 55:1,1,5,1,1
59:1,1,1,3,11 61:1,3,5,5,31 67:1,3,3,9,7,49 91:1,1,1,15,21,21 97:1,3,1,13,27,49 103:1,1,1,15,7,5 109:1,3,1,15,13,25
115:1,1,5,5,19,61 131:1,3,7,11,23,15,103 137:1,3,7,13,13,15,69 143:1,1,3,13,7,35,63 145:1,3,5,9,1,25,53
157:1,3,1,13,9,35,107 167:1,3,1,5,27,61,31 171:1,1,5,11,19,41,61 185:1,3,5,3,3,13,69 191:1,1,7,13,1,19,1
193:1,3,7,5,13,19,59 203:1,1,3,9,25,29,41 211:1,3,5,13,23,1,55 213:1,3,7,3,13,59,17 229:1,3,1,3,5,53,69
239:1,1,5,5,23,33,13 241:1,1,7,7,1,61,123 247:1,1,7,9,13,61,49 253:1,3,3,5,3,55,33 285:1,3,1,15,31,13,49,245
299:1,3,5,15,31,59,63,97 301:1,3,1,11,11,11,77,249 333:1,3,1,11,27,43,71,9 351:1,1,7,15,21,11,81,45
355:1,3,7,3,25,31,65,79 357:1,3,1,1,19,11,3,205 361:1,1,5,9,19,21,29,157 369:1,3,7,11,1,33,89,185
391:1,3,3,3,15,9,79,71 397:1,3,7,11,15,39,119,27 425:1,1,3,1,11,31,97,225 451:1,1,1,3,23,43,57,177
463:1,3,7,7,17,17,37,71 487:1,3,1,5,27,63,123,213 501:1,1,3,5,11,43,53,133 529:1,3,5,5,29,17,47,173,479
539:1,3,3,11,3,1,109,9,69 545:1,1,1,5,17,39,23,5,343 557:1,3,1,5,25,15,31,103,499 563:1,1,1,11,11,17,63,105,183
601:1,1,5,11,9,29,97,231,363 607:1,1,5,15,19,45,41,7,383 617:1,3,7,7,31,19,83,137,221 623:1,1,1,3,23,15,111,223,83
631:1,1,5,13,31,15,55,25,161 637:1,1,3,13,25,47,39,87,257
"""
"""For each dimension after the first, its primitive polynomial in binary, and the first direction numbers."""

Words = NDArray[np.uint64]


class Sobol:
    """Trial `index` has point `index` of the sequence (modulo 2^32), in time that does not grow with the index."""

    def __init__(self, dimensions: int, seed: int) -> None:
        """Raises ValueError beyond 64 dimensions."""
        self._columns = columns(dimensions)
        self._keys: Words = sequence(seed).generate_state(dimensions, np.uint64).astype(np.uint64)
        self._random = Random(dimensions, seed)

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:  # noqa: ARG002  # nothing is learnt
        """Yields the point of the sequence, then random ones for a space in which points far apart are the same."""
        scrambled = scramble(unscrambled(self._columns, index), self._keys)
        point = (scrambled.astype(float) + 0.5) / 2.0**BITS
        return chain([Draw(point.tolist(), NEW)], self._random.others(index, NEW))


def columns(dimensions: int) -> Words:
    """Returns the generating matrices: `dimensions` rows of 32 columns, each column's bits as one number."""
    if dimensions > DIMENSIONS:
        raise ValueError(f"sobol has {DIMENSIONS} dimensions; the study has {dimensions} parameters")
    rows = [[1] * BITS, *(_direction_numbers(line) for line in JOE_KUO.split()[: dimensions - 1])]
    shifts = np.arange(BITS - 1, -1, -1, dtype=np.uint64)
    return np.array(rows, dtype=np.uint64) << shifts


def _direction_numbers(line: str) -> list[int]:
    """The recurrence of Bratley and Fox: m_k = m_(k-s) XOR 2^s m_(k-s) XOR the sum of 2^i a_i m_(k-i)."""
    polynomial, first = line.split(":")
    numbers = [int(number) for number in first.split(",")]
    degree = len(numbers)
    taps = [i for i in range(1, degree + 1) if int(polynomial) >> (degree - i) & 1]
    while len(numbers) < BITS:
        new = numbers[-degree]
        for i in taps:
            new ^= numbers[-i] << i
        numbers.append(new)
    return numbers


def unscrambled(columns: Words, index: int) -> Words:
    """Returns point `index` as 32-bit integers, in the order of the Gray code as it is published everywhere."""
    gray = index ^ (index >> 1)
    chosen = [bit for bit in range(BITS) if gray >> bit & 1]
    point: Words = np.bitwise_xor.reduce(columns[:, chosen], axis=1)
    return point


def scramble(point: Words, keys: Words) -> Words:
    """Returns the point with every bit flipped or not by a hash of its dimension's key, its place, and the bits above.

    The same key always scrambles in the same way, so that the scrambled points fill the space as evenly.
    """
    places = np.arange(BITS, dtype=np.uint64)
    above = point[:, None] >> (np.uint64(BITS) - places)  # the bits above place 0 (the highest) are none
    marked = above | np.uint64(1) << places  # 1 and then the bits, so that no two prefixes are the same number
    flips = _mixed(keys[:, None] ^ _mixed(marked)) >> np.uint64(63)
    scrambled: Words = point ^ np.bitwise_or.reduce(flips << (np.uint64(BITS - 1) - places), axis=1)
    return scrambled


def _mixed(word: Words) -> Words:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): each bit depends on all bits of the word."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
