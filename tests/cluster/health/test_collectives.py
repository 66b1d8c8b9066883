"""Find the collective that a rank did not enter, from the records of all ranks."""

import json
from itertools import count

import pytest

from cluster.health import collectives
from cluster.health.collectives import find_absent_ranks
from cluster.health.hang_detector import Position
from run_store.record.hang import MAX_RANKS

GRADIENTS = ("gloo:all_reduce", [53376], "Float")
WEIGHTS = ("gloo:all_gather", [26240], "Float")
SUMS = ("gloo:all_reduce", [6, 18], "Double")
STEP = [GRADIENTS, SUMS, WEIGHTS]


def record(*entered, ranks=2, group="0", pending=1, first=1, **fields):
    """Return a rank's record of the collectives that it entered, as JSON.

    pending: how many of the last collectives are not complete.
    first: the number of the first one in the buffer.
    """
    entries = [
        {
            "process_group": [group, "default_pg"],
            "collective_seq_id": number,
            "is_p2p": False,
            "profiling_name": operation,
            "input_sizes": [shape],
            "input_dtypes": [dtype],
            "retired": number < first + len(entered) - pending,
            "state": "scheduled",
            "time_created_ns": number,
            "thread_id": "a field that nobody reads",
            **fields,
        }
        for number, (operation, shape, dtype) in zip(count(first), entered)
    ]
    groups = {group: list(range(ranks))}
    return json.dumps({"groups": groups, "torch": {"entries": entries}}).encode()


def found(*records, steps=None, nodes=()):
    positions = [Position("step", step) for step in steps or [9] * len(records)]
    return find_absent_ranks(
        {rank: text for rank, text in enumerate(records) if text is not None},
        positions,
        nodes or [""] * len(records),
    )


def test_a_rank_that_has_not_entered_a_pending_collective_is_absent():
    finding = found(record(*STEP), record(*STEP[:2], pending=0), steps=[7, 6], nodes=["a", "b"])
    assert (finding.collective.operation, finding.collective.number) == ("gloo:all_gather", 3)
    assert (finding.collective.shape, finding.collective.dtype) == ((26240,), "Float")
    assert [(rank.rank, rank.node) for rank in finding.absent] == [(1, "b")]
    assert (finding.waiting, finding.hang_step) == ((0,), 7)


@pytest.mark.parametrize("skipping", [0, 1])
def test_a_rank_that_skips_a_collective_of_the_step_is_absent(skipping):
    whole = [*STEP, *STEP, *STEP]
    records = [record(*whole), record(*whole)]
    records[skipping] = record(*STEP, *STEP, GRADIENTS, SUMS, GRADIENTS)
    finding = found(*records)
    assert finding.collective.number == 9
    assert [rank.rank for rank in finding.absent] == [skipping]
    assert "entered gloo:all_reduce of 53376 Float instead" in finding.text


def test_a_rank_whose_collective_differs_from_those_of_two_ranks_is_absent():
    finding = found(
        record(*STEP, ranks=3), record(GRADIENTS, WEIGHTS, ranks=3), record(*STEP, ranks=3)
    )
    assert [rank.rank for rank in finding.absent] == [1]
    assert finding.collective.number == 2
    assert finding.waiting == (0, 2)


def test_a_rank_without_a_record_is_named_with_the_pending_collective():
    for missing in (None, b"", b"[]", b"{", b'{"groups": {}, "torch": {"entries": 3}}'):
        finding = found(record(*STEP), missing)
        assert finding.text == (
            "Rank 1 sent no record of collectives: stopped, blocked or lost. Rank 0 entered "
            "gloo:all_gather of 26240 Float (number 3 of group default_pg) in step 9, which does "
            "not complete"
        )


def test_a_pending_collective_that_all_ranks_entered_is_reported():
    finding = found(record(*STEP), record(*STEP))
    assert not finding.absent
    assert finding.text.startswith("Rank 0, rank 1 entered gloo:all_gather")


def test_no_collective_is_named_if_no_rank_waits_in_one():
    finding = found(record(*STEP, pending=0), record(*STEP, pending=0))
    assert finding.collective is None
    assert "No rank waits in a collective of step 9" in finding.text
    assert found(None, None).absent_count == 2
    assert found().hang_step == 0


def test_uneven_shapes_of_a_gather_are_not_a_difference():
    uneven = [GRADIENTS, ("gloo:all_gather", [1], "Float")]
    assert not found(record(GRADIENTS, WEIGHTS), record(*uneven)).absent
    other_type = [GRADIENTS, ("gloo:all_gather", [26240], "Double")]
    assert found(record(GRADIENTS, WEIGHTS), record(*other_type)).absent


def test_collectives_dropped_from_one_rank_s_buffer_are_not_compared():
    late = record(*STEP[1:], first=2)
    assert not found(record(*STEP), late).absent


def test_a_rank_that_entered_no_collective_of_its_group_is_absent():
    nothing = json.dumps({"groups": {"0": [0, 1]}, "torch": {}}).encode()
    assert [rank.rank for rank in found(record(*STEP), nothing).absent] == [1]
    stranger = json.dumps({"groups": {}, "torch": {"entries": []}}).encode()
    alone = found(record(*STEP, ranks=1), stranger)  # rank 1 is not in the group
    assert not alone.absent


def test_the_earliest_pending_collective_of_several_groups_is_reported():
    early = json.loads(record(SUMS, group="1", time_created_ns=-5))
    both = json.loads(record(*STEP))
    both["groups"] |= early["groups"]
    both["torch"]["entries"] += early["torch"]["entries"]
    finding = found(json.dumps(both).encode(), record(pending=0))
    assert finding.collective.operation == "gloo:all_reduce"
    assert finding.collective.number == 1


def test_point_to_point_entries_are_ignored():
    assert found(record(*STEP, is_p2p=True), record(pending=0)).collective is None


def test_texts_from_a_record_are_bounded_in_length():
    shapes = [1] * 1000
    text = record(("x" * 5000, shapes, "y" * 5000), ranks=1)
    collective = found(text).collective
    assert len(collective.text) < 1000
    many = found(record(GRADIENTS, ranks=200), *[None] * 199)
    assert (many.absent_count, len(many.absent)) == (199, MAX_RANKS)
    assert "rank 4 and 60 others sent no record" in many.text
    assert "Not listed: 135 ranks" in many.text


def test_a_record_above_the_size_limit_counts_as_missing(monkeypatch):
    monkeypatch.setattr(collectives, "LIMITS", collectives.LIMITS._replace(bytes=100))
    assert not found(record(*STEP)).absent[0].has_record
