"""Verdicts about silent corruption, for faults whose culprit is known."""

import numpy as np
import pytest

from trainer.training.check_plan import SlotCheck
from trainer.training.corruption_verdict import Dispute, judge

RIGHT = np.array([5, -7, 2**62, 0])


def wrong(seed=1):
    """Return the right digests with some of them changed."""
    return RIGHT + np.array([0, seed, -seed, 0])


def dispute(ranks, owner, verifier, in_step=None, repeated=None, slot=4):
    """Return a dispute in which all digests are right, except those that are given for a rank."""
    in_step, repeated = in_step or {}, repeated or {}
    return Dispute(
        SlotCheck(slot, owner, verifier),
        in_step.get(owner, RIGHT),
        in_step.get(verifier, RIGHT),
        np.array([repeated.get(rank, RIGHT) for rank in range(ranks)]),
    )


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("culprit", [0, 1])
def test_a_rank_with_a_transient_fault_is_named_on_any_number_of_ranks(ranks, culprit):
    verdict = judge([dispute(ranks, 0, 1, {culprit: wrong()})])
    assert (verdict.ranks, verdict.slots, verdict.digests) == ((culprit,), (4,), (1, 2))
    assert verdict.is_certain
    assert not verdict.is_reproducible


@pytest.mark.parametrize("ranks", [3, 4, 8])
@pytest.mark.parametrize("culprit", [0, 1])
def test_a_rank_with_a_reproducible_fault_is_named_by_the_majority(ranks, culprit):
    verdict = judge([dispute(ranks, 0, 1, {culprit: wrong()}, {culprit: wrong()})])
    assert verdict.ranks == (culprit,)
    assert verdict.is_certain
    assert verdict.is_reproducible


def test_with_two_ranks_a_reproducible_fault_names_both():
    verdict = judge([dispute(2, 1, 0, {1: wrong()}, {1: wrong()})])
    assert verdict.ranks == (0, 1)
    assert not verdict.is_certain
    assert verdict.is_reproducible


def test_a_rank_whose_digests_differ_is_named_even_with_two_ranks():
    verdict = judge([dispute(2, 1, 0, {1: wrong(1)}, {1: wrong(2)})])
    assert verdict.ranks == (1,)
    assert verdict.is_certain


def test_a_rank_that_repeats_a_slot_wrongly_is_named_too():
    verdict = judge([dispute(5, 0, 1, {0: wrong(1)}, {3: wrong(2)})])
    assert verdict.ranks == (0, 3)
    assert verdict.is_certain
    assert verdict.is_reproducible


def test_without_any_agreement_owner_and_verifier_are_reported():
    digests = {0: wrong(1), 1: wrong(2), 2: wrong(3)}
    verdict = judge([dispute(3, 0, 1, digests, digests)])
    assert verdict.ranks == (0, 1)
    assert not verdict.is_certain


def test_a_certain_dispute_decides_an_uncertain_one():
    open_one = dispute(4, 0, 1, {1: wrong()}, {1: wrong(), 2: wrong()}, slot=1)
    decided = dispute(4, 1, 3, {1: wrong()}, {1: wrong()}, slot=6)
    assert not judge([open_one]).is_certain
    verdict = judge([open_one, decided])
    assert (verdict.ranks, verdict.slots, verdict.is_certain) == ((1,), (6,), True)


def test_random_faults_of_a_rank_are_attributed_to_it():
    random = np.random.default_rng(5)
    for _ in range(500):
        ranks = int(random.integers(3, 9))
        owner, verifier = random.choice(ranks, 2, replace=False).tolist()
        culprit = owner if random.random() < 0.5 else verifier
        change = RIGHT + random.integers(1, 2**60, len(RIGHT))
        again = {culprit: change} if random.random() < 0.5 else {}
        verdict = judge([dispute(ranks, owner, verifier, {culprit: change}, again)])
        assert (verdict.ranks, verdict.is_certain) == ((culprit,), True)
        assert verdict.is_reproducible == bool(again)
