"""Verdict on ranks whose digests of the same slot differ.

    digests of owner and verifier differ ──▶ all ranks repeat the slot ──judge──▶ CorruptionVerdict

The repetition has the same weights, data and dropout. So its digest is the same on every healthy
rank, and the same as in the step. The majority of the ranks decides which digest is right:

    a rank repeats another digest          its fault is reproducible
    all ranks repeat one digest            the rank whose digest in the step was another one had a
                                           transient fault
    no majority, as between two ranks      a rank that contradicts itself is wrong; otherwise one of
                                           the two ranks is, and it remains open which one
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trainer.training.check_plan import SlotCheck


class Dispute(NamedTuple):
    """Check whose digests differ, with all digests of its slot.

    Attributes:
        check: the check.
        owners: [digests], the digests of the owner in the step.
        verifiers: [digests], the digests of the verifier in the step.
        repeated: [ranks, digests], the digests of every rank in the repetition.
    """

    check: SlotCheck
    owners: np.ndarray
    verifiers: np.ndarray
    repeated: np.ndarray


@dataclass(frozen=True)
class CorruptionVerdict:
    """Result of all disputes of a step.

    Attributes:
        ranks: the ranks that computed wrong digests, or two ranks of which one computed them.
        slots: the slots that they computed.
        digests: the indices of the digests that differ.
        is_certain: whether all of `ranks` were wrong; otherwise one of them was.
        is_reproducible: whether the wrong result was repeated.
    """

    ranks: tuple[int, ...]
    slots: tuple[int, ...]
    digests: tuple[int, ...]
    is_certain: bool
    is_reproducible: bool


def judge(disputes: Sequence[Dispute]) -> CorruptionVerdict:
    """Return the verdict on at least one dispute; equal on all ranks.

    If some disputes are decided, the others are ignored, because the same fault explains them.
    """
    verdicts = [_verdict(dispute) for dispute in disputes]
    decided = [verdict for verdict in verdicts if verdict.is_certain] or verdicts
    return CorruptionVerdict(
        ranks=_union(verdict.ranks for verdict in decided),
        slots=_union(verdict.slots for verdict in decided),
        digests=_union(verdict.digests for verdict in decided),
        is_certain=decided[0].is_certain,
        is_reproducible=any(verdict.is_reproducible for verdict in decided),
    )


def _verdict(dispute: Dispute) -> CorruptionVerdict:
    check, repeated = dispute.check, dispute.repeated
    in_step = {check.owner: dispute.owners, check.verifier: dispute.verifiers}
    ((first, votes),) = Counter(row.tobytes() for row in repeated).most_common(1)
    if 2 * votes > len(repeated):
        right = np.frombuffer(first, dtype=repeated.dtype)
        repeats = {rank for rank, row in enumerate(repeated) if not np.array_equal(row, right)}
        wrong = {rank for rank, row in in_step.items() if not np.array_equal(row, right)}
        found = [repeated[rank] for rank in repeats] + [in_step[rank] for rank in wrong]
        ranks, certain, reproducible = repeats | wrong, True, bool(repeats)
        different = np.any([row != right for row in found], axis=0)
    else:
        changed = {r for r, row in in_step.items() if not np.array_equal(row, repeated[r])}
        certain = len(changed) == 1
        ranks, reproducible = changed if certain else set(in_step), not certain
        different = dispute.owners != dispute.verifiers
    return CorruptionVerdict(
        tuple(sorted(ranks)),
        (check.slot,),
        tuple(np.flatnonzero(different).tolist()),
        certain,
        reproducible,
    )


def _union(parts: object) -> tuple[int, ...]:
    return tuple(sorted({value for part in parts for value in part}))  # type: ignore[attr-defined]
