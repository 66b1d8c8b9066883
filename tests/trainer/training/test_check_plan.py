"""Plan of slot checks: slots are repeated by other ranks, one per step, in rotation."""

import pytest

from data_pipeline.batching.plan import slots_of_rank
from trainer.training.check_plan import checks_until_all, extra_passes, planned_checks

SHAPES = [(ranks, slots) for ranks in range(2, 9) for slots in range(ranks, 25)]


def test_a_single_rank_has_no_checks():
    assert planned_checks(1, 1, 8) == []
    assert extra_passes(1, 8) == 0


@pytest.mark.parametrize(("ranks", "slots"), SHAPES)
def test_checks_fit_into_the_passes_of_each_rank(ranks, slots):
    most = max(len(slots_of_rank(rank, ranks, slots)) for rank in range(ranks))
    for number in range(30):
        checks = planned_checks(number, ranks, slots)
        verifiers = [check.verifier for check in checks]
        assert len(set(verifiers)) == len(verifiers) > 0
        for slot, owner, verifier in checks:
            assert slot in slots_of_rank(owner, ranks, slots)
            assert owner != verifier
            used = len(slots_of_rank(verifier, ranks, slots)) + 1
            assert used <= most + extra_passes(ranks, slots)
        if extra_passes(ranks, slots):
            assert sorted(check.owner for check in checks) == list(range(ranks))


@pytest.mark.parametrize(("ranks", "slots"), SHAPES)
def test_each_rank_takes_part_within_the_stated_number_of_checks(ranks, slots):
    until = checks_until_all(ranks, slots)
    for first in range(5):
        included = {
            rank
            for number in range(first, first + until)
            for check in planned_checks(number, ranks, slots)
            for rank in (check.owner, check.verifier)
        }
        assert included == set(range(ranks))


@pytest.mark.parametrize(("ranks", "slots"), [(2, 6), (3, 6), (4, 8), (3, 7), (5, 8)])
def test_each_slot_is_checked_after_many_steps(ranks, slots):
    checked = {c.slot for number in range(200) for c in planned_checks(number, ranks, slots)}
    repeated_only = {  # these slots' owners have a dummy, and therefore only verify other ranks
        slot
        for rank in range(slots % ranks, ranks)
        for slot in slots_of_rank(rank, ranks, slots)
        if slots % ranks
    }
    assert checked == set(range(slots)) - repeated_only


@pytest.mark.parametrize(
    ("nodes", "slots"),
    [("aabb", 8), ("aaabbb", 6), ("aabbcc", 12), ("aab", 6), ("abc", 3), ("aabb", 10)],
)
def test_verifiers_on_other_nodes_are_preferred(nodes, slots):
    """As many pairs as possible are on different nodes; on nodes of equal size, all pairs."""
    for number in range(12):
        checks = planned_checks(number, len(nodes), slots, list(nodes))
        distant = sum(nodes[check.owner] != nodes[check.verifier] for check in checks)
        assert distant == (2 if nodes == "aab" else len(checks))


@pytest.mark.parametrize("nodes_of", [None, 1, 2])
@pytest.mark.parametrize(("ranks", "slots"), SHAPES)
def test_verifiers_of_the_same_owner_repeat_different_slots(ranks, slots, nodes_of):
    nodes = [str(rank // nodes_of) for rank in range(ranks)] if nodes_of else ()
    for number in range(6):
        checks = planned_checks(number, ranks, slots, nodes)
        for owner in range(ranks):
            repeated = [check.slot for check in checks if check.owner == owner]
            own = slots_of_rank(owner, ranks, slots)
            assert len(set(repeated)) == min(len(repeated), len(own))


def test_owners_are_checked_in_turn_by_the_same_verifier():
    partners = {planned_checks(number, 5, 10)[0].owner for number in range(4)}
    assert partners == {1, 2, 3, 4}


def test_a_plan_for_a_thousand_ranks_pairs_different_nodes():
    nodes = [str(rank // 8) for rank in range(1000)]
    for slots, ranks in ((4000, 1000), (4001, 999), (4600, 400)):
        checks = planned_checks(3, 1000, slots, nodes)
        assert len(checks) == ranks
        near = sum(nodes[check.owner] == nodes[check.verifier] for check in checks)
        assert near == (7 if slots == 4001 else 0)  # the only owner has seven neighbours
