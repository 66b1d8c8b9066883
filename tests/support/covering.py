"""Pairwise testing: few cases in which every two values of different factors meet."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

Case = tuple[Any, ...]


def value_pairs(case: Case) -> set[tuple[int, Any, int, Any]]:
    """Every two of a case's values, each with the number of its factor."""
    return {(i, case[i], j, case[j]) for i, j in combinations(range(len(case)), 2)}


def covering_cases(
    factors: Sequence[Sequence[Any]], allowed: Callable[[Case], bool], attempts: int = 20
) -> list[Case]:
    """Cases that hold every pair of values that any allowed case holds; always the same ones.

    Greedy: each case is one of those with the most new pairs. Which one is drawn, and the attempt
    with the fewest cases counts.
    """
    candidates = [case for case in product(*factors) if allowed(case)]
    numbers: dict[tuple[int, Any, int, Any], int] = {}
    pairs = [  # as bits of a number
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
