"""Plan of the checks of slots: which rank repeats which slot of which other rank.

    number of the check, ranks, slots, node of each rank ──planned_checks──▶ [SlotCheck, …]

The plan is a pure function, so all ranks know it without communication. A rank repeats at most one
slot in a check. If the ranks divide the slots evenly, every rank runs one additional pass.
Otherwise the ranks with fewer slots repeat slots in their dummy passes, and a check needs no
additional pass.

The verified ranks take turns, and a verifier on another node is preferred.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.batching.plan import slots_of_rank


class SlotCheck(NamedTuple):
    """Check of one slot.

    Attributes:
        slot: the slot that two ranks compute.
        owner: the rank that computes the slot for the step.
        verifier: the rank that repeats the slot only to compare it.
    """

    slot: int
    owner: int
    verifier: int


def planned_checks(
    number: int, ranks: int, slots: int, node_ids: Sequence[str] = ()
) -> list[SlotCheck]:
    """Return the checks of a step, in the order of their verifiers' first slots.

    Args:
        number: the number of the check in the run, which selects ranks and slots.
        ranks: the number of ranks.
        slots: the number of slots of a step.
        node_ids: the id of each rank's node; empty if all ranks are on one node.
    """
    if ranks == 1:
        return []
    nodes = _as_numbers(node_ids or [""] * ranks)
    if slots % ranks:
        return _checks_by_dummies(number, ranks, slots, nodes)
    everyone = np.arange(ranks)
    others = [np.roll(everyone, -shift) for shift in range(1, ranks)]
    owners = _most_distant(others, everyone, nodes, number)
    return [_check(number, int(owners[rank]), rank, ranks, slots) for rank in range(ranks)]


def extra_passes(ranks: int, slots: int) -> int:
    """Return how many passes a check adds to a step of every rank."""
    return int(ranks > 1 and slots % ranks == 0)


def checks_until_all(ranks: int, slots: int) -> int:
    """Return the number of consecutive checks that together include every rank."""
    if not (full := slots % ranks):
        return 1
    return -(-full // (ranks - full))


def _checks_by_dummies(number: int, ranks: int, slots: int, nodes: np.ndarray) -> list[SlotCheck]:
    full = slots % ranks  # the number of ranks that have one slot more than the others
    verifiers = np.arange(full, ranks)
    owners = (number * len(verifiers) + np.arange(len(verifiers))) % full
    orders = [np.roll(owners, shift) for shift in range(len(verifiers))]
    chosen = _most_distant(orders, verifiers, nodes, number)
    checks = []
    checks_of = Counter[int]()  # by owner, so that its verifiers repeat different slots
    for owner, rank in zip(chosen.tolist(), verifiers.tolist(), strict=True):
        checks.append(_check(number + checks_of[owner], owner, rank, ranks, slots))
        checks_of[owner] += 1
    return checks


def _check(turn: int, owner: int, verifier: int, ranks: int, slots: int) -> SlotCheck:
    own = slots_of_rank(owner, ranks, slots)
    return SlotCheck(own[turn % len(own)], owner, verifier)


def _most_distant(
    orders: list[np.ndarray], verifiers: np.ndarray, nodes: np.ndarray, number: int
) -> np.ndarray:
    """Return the order of owners with the most pairs across nodes; equal orders take turns."""
    distant = np.array([(nodes[owners] != nodes[verifiers]).sum() for owners in orders])
    best = np.flatnonzero(distant == distant.max())
    return orders[best[number % len(best)]]


def _as_numbers(node_ids: Sequence[str]) -> np.ndarray:
    numbers = {node: index for index, node in enumerate(dict.fromkeys(node_ids))}
    return np.array([numbers[node] for node in node_ids])
