"""Pairwise testing: few cases that contain all pairs of values of different factors."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

Case = tuple[Any, ...]


def value_pairs(case: Case) -> set[tuple[int, Any, int, Any]]:
    """Return each pair of a case's values, with the numbers of their factors."""
    return {(i, case[i], j, case[j]) for i, j in combinations(range(len(case)), 2)}


def covering_cases(
    factors: Sequence[Sequence[Any]], allowed: Callable[[Case], bool], attempts: int = 20
) -> list[Case]:
    """Return cases that contain every pair of values of the allowed cases; deterministic.

    The algorithm is greedy: each chosen case has the maximum number of new pairs, and ties are
    decided by chance. Of several attempts, the one with the fewest cases is returned.
    """
    candidates = [case for case in product(*factors) if allowed(case)]
    numbers: dict[tuple[int, Any, int, Any], int] = {}
    pairs = [  # each set of pairs is the bits of a number
        sum(1 << numbers.setdefault(pair, len(numbers)) for pair in value_pairs(case))
        for case in candidates
    ]
    best = candidates
    for seed in range(attempts):
        draw = random.Random(seed)
        missing = (1 << len(numbers)) - 1
        cases = []
        while missing:
            gains = [(held & missing).bit_count() for held in pairs]
            most = max(gains)
            chosen = draw.choice([n for n, gain in enumerate(gains) if gain == most])
            cases.append(candidates[chosen])
            missing &= ~pairs[chosen]
        best = min(best, cases, key=len)
    return best
