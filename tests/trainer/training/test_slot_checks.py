"""Flipped bits of a rank are detected and the rank is named; healthy training is unchanged.

Real engines and the real loop on real ranks. Bits are flipped in memory: in weights, activations,
and gradients that the backward pass has computed.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from support.ranks import verify_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.verify_jobs import KINDS, Flip, Setting

from run_store.record.corruption import MAX_PARAMETERS, CorruptionFinding, SilentCorruptionError
from run_store.record.metrics_lines import CorruptionFound, parse_line
from trainer.process.placement import Placement
from trainer.training import slot_checks
from trainer.training.check_plan import SlotCheck, planned_checks
from trainer.training.slot_checks import SlotChecks, StepChecks

STEPS = 5


def setting(stage, slots, precision="fp32", **others):
    return Setting(Shape(stage, precision, numerics="exact"), slots, **others)


def name(value):
    if not isinstance(value, Setting):
        return None
    guarded = " guarded" if value.guard else ""
    return f"stage {value.shape.zero_stage} {value.shape.precision} {value.slots} slots{guarded}"


# Ranks, setting and number of flips of each case. In some cases, checks take an additional pass; in
# others, they are made in the passes of dummies.
SHORT = [
    (2, setting(0, 4), 6),
    (3, setting(1, 5), 6),
    (3, setting(3, 6), 5),
    (2, setting(2, 5, "bf16"), 5),
]
LONG = [
    (ranks, setting(stage, slots, precision), 25)
    for ranks, stage, slots, precision in [
        (2, 0, 5, "fp32"),
        (3, 0, 6, "fp32"),
        (2, 1, 4, "bf16"),
        (3, 1, 7, "fp32"),
        (2, 2, 4, "fp32"),
        (3, 2, 8, "bf16"),
        (2, 3, 6, "fp32"),
        (3, 3, 5, "fp32"),
    ]
]


def flips(ranks, count):
    """Return flips of each kind on each rank, some transient and some reproducible."""
    return [
        Flip(rank=seed % ranks, kind=KINDS[seed % 3], sticks=seed % 4 != 3, seed=1000 + seed)
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("ranks", "trained", "count"),
    [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)],
    ids=name,
)
def test_each_flip_that_changes_a_checked_digest_is_detected(rank_pools, ranks, trained, count):
    drawn = flips(ranks, count)
    by_rank = rank_pools(ranks).run(verify_jobs.try_flips, trained, drawn)
    changed = 0
    for index, flip in enumerate(drawn):
        found = [results[index] for results in by_rank]
        (finding,) = {finding for _, finding in found}  # equal on all ranks
        assert not any(changes for rank, (changes, _) in enumerate(found) if rank != flip.rank)
        assert (finding is not None) == found[flip.rank][0], flip
        if finding is None:
            continue
        changed += 1
        assert flip.rank in finding.ranks, (flip, finding)
        assert finding.checked_step == 3 + index
        assert finding.parameter_count > 0
        assert finding.is_reproducible == flip.sticks
        assert finding.is_certain == (ranks > 2 or not flip.sticks)
        if finding.is_certain:
            assert finding.ranks == (flip.rank,)
    assert changed >= count / 3


HEALTHY = [(3, setting(1, 3), 150), (2, setting(2, 2, "bf16"), 120)]
HEALTHY += [(3, setting(3, 3), 50), (3, setting(0, 4), 80)]


@pytest.mark.parametrize(
    ("ranks", "trained", "steps"),
    [
        *(pytest.param(*case, marks=pytest.mark.long) for case in HEALTHY),
        *(
            pytest.param(ranks, trained, 10 * steps, marks=pytest.mark.chaos)
            for ranks, trained, steps in HEALTHY
        ),
    ],
    ids=name,
)
def test_checks_of_healthy_ranks_raise_no_alarm(rank_pools, ranks, trained, steps):
    """CI makes a thousand comparisons, chaos 10,000; weights and grids change as in training."""
    results = rank_pools(ranks).run(verify_jobs.count_alarms, trained, steps, cpu_seconds=1200)
    per_step = ranks - trained.slots % ranks
    assert results == [(per_step * steps, 0)] * ranks


@pytest.mark.parametrize(
    ("ranks", "trained"),
    [
        (2, setting(0, 4, every=2)),
        (3, setting(1, 6, every=1, guard=True)),
        (3, setting(2, 5)),
        (2, setting(3, 5, every=2)),
        pytest.param(2, setting(1, 4, "bf16"), marks=pytest.mark.long),
    ],
    ids=name,
)
def test_checks_do_not_change_a_bit_of_training(rank_pools, ranks, trained):
    pool = rank_pools(ranks)
    checked, plain = (
        pool.run(verify_jobs.train, replace(trained, every=every), STEPS)
        for every in (trained.every, 0)
    )
    for mine, other in zip(checked, plain, strict=True):
        assert mine["finding"] is None
        assert mine["weights"] == other["weights"]
        assert mine["losses"] == other["losses"]
        assert len(mine["losses"]) == STEPS
    # The first step has two rounds of passes, because the first one only measures gradients for the
    # grids.
    checks = STEPS // trained.every + (trained.every == 1)
    more = 0 if trained.slots % ranks else checks
    assert [
        mine["passes"] - other["passes"] for mine, other in zip(checked, plain, strict=True)
    ] == [more] * ranks
    assert sum(mine["digested"] for mine in checked) >= 2 * checks
    assert not any(other["digested"] for other in plain)


def test_a_step_with_a_flip_is_not_applied(rank_pools):
    trained = setting(1, 6, guard=True, node_names=("near", "far", "farther"))
    flip = Flip(rank=1, kind="weight", sticks=True, seed=2)
    pool = rank_pools(3)
    results = pool.run(verify_jobs.train, trained, STEPS, flip, 4)
    undisturbed = pool.run(verify_jobs.train, trained, 3)
    for result, other in zip(results, undisturbed, strict=True):
        assert result["losses"] == other["losses"]
        finding = result["finding"]
        assert (finding.ranks, finding.nodes, finding.checked_step) == ((1,), ("far",), 4)
        assert finding.last_verified_step == 3
        assert result["said"].startswith("silent data corruption: rank 1 on node far computed")
        ((_, _, details),) = result["events"]
        assert details["checked_step"] == 4
        assert details["nodes"] == ["far"]


def test_a_non_finite_step_of_healthy_ranks_is_skipped(rank_pools):
    (kinds,) = set(map(tuple, rank_pools(2).run(verify_jobs.train_past_nan, setting(1, 4))))
    assert kinds[:4] == ("train", "train", "skipped", "train")


def test_a_corruption_finding_is_recorded_as_an_event():
    finding = CorruptionFinding(
        checked_step=7,
        slots=(2, 3),
        ranks=(0, 1),
        nodes=("a", "b"),
        parameters=("x.weight", "loss"),
        parameter_count=9,
        is_certain=False,
        is_reproducible=True,
        last_verified_step=6,
    )
    event = CorruptionFound.of(finding, 6)
    assert parse_line(event.to_json().encode()) == event
    assert event.step == 6
    assert event.text == finding.text == str(SilentCorruptionError(finding))
    for part in (
        "either rank 0 on node a or rank 1 on node b",
        "slots 2, 3 of step 7",
        "x.weight, loss and 7 other parameters",
    ):
        assert part in event.text


def checks(rank, every=4, slots=6, **placement):
    return SlotChecks(
        every,
        slots=slots,
        parameters=("a", "b"),
        placement=Placement(rank=rank, world_size=3, **placement),
    )


def test_checks_are_due_at_multiples_of_the_interval():
    assert [step for step in range(1, 13) if checks(0).of_step(step).checks] == [4, 8, 12]
    assert not checks(0, every=0).of_step(4).checks
    alone = SlotChecks(1, slots=6, parameters=(), placement=Placement())
    assert not alone.of_step(1).checks
    assert "single rank" in alone.schedule_text


def test_digest_words_of_two_ranks_cancel_only_if_all_bits_are_equal():
    """Digests near both ends of 64 bits; one of them differs by one bit."""
    digests = torch.tensor([2**63 - 1, -(2**63), -1, 0])
    check = SlotCheck(slot=2, owner=0, verifier=1)
    for bit in (None, 0, 31, 32, 62, 63):
        other = digests.clone()
        if bit is not None:
            other[1] ^= -(2**63) if bit == 63 else 2**bit
        ranks = [StepChecks((check,), rank, 1, len(digests)) for rank in range(3)]
        words = [
            rank.words({2: mine} if mine is not None else {})
            for rank, mine in zip(ranks, (digests, other, None), strict=True)
        ]
        assert {share.shape for share in words} == {(1, 8)}
        assert ranks[2].failed(sum(words)) == ([] if bit is None else [check])


def test_after_a_restart_the_last_verified_step_is_the_check_before_it():
    schedule = SlotChecks(
        4, slots=6, parameters=("a",), placement=Placement(world_size=3), first_step=11
    )
    assert schedule._passed == [8, 8, 8]


def test_the_schedule_is_described_by_passes_and_interval():
    assert "each rank repeats a slot" in checks(0).schedule_text
    uneven = checks(0, slots=8).schedule_text
    assert "no additional pass" in uneven
    assert "within 8 steps" in uneven
    assert checks(0, every=0).schedule_text is None


def test_ranks_and_slots_are_rotated_by_the_number_of_the_check():
    placement = Placement(rank=1, world_size=3)
    schedule = SlotChecks(10, slots=7, parameters=["w"], placement=placement)
    for number in range(1, 6):
        checks = schedule.of_step(10 * number).checks
        assert checks == tuple(planned_checks(number, 3, 7))


NAMES = [f"layer.{number}" for number in range(MAX_PARAMETERS + 3)]
HEALTHY = torch.arange(len(NAMES) + 1)


class Ranks:
    """The schedules of three ranks in threads; rank 2 only repeats slots of the other two."""

    def __init__(self, monkeypatch):
        self._barrier = threading.Barrier(3)
        self._tables = {}
        monkeypatch.setattr(slot_checks, "sum_over_ranks", self._sum)
        self.schedules = [
            SlotChecks(10, slots=5, parameters=NAMES, placement=Placement(rank=rank, world_size=3))
            for rank in range(3)
        ]

    def _sum(self, table, placement):
        self._tables[placement.rank] = table
        self._barrier.wait(60)
        return sum(self._tables.values())

    def pass_check(self, step):
        for schedule in self.schedules:
            schedule.passed(step, schedule.of_step(step))

    def finding(self, step, in_step, repeated):
        """Return a failed check and its finding, made from the digests of each rank."""
        (check,) = self.schedules[0].of_step(step).checks

        def error(rank):
            mine = {check.slot: in_step[rank]} if rank in in_step else {}
            schedule = self.schedules[rank]
            return schedule.error(step, [check], mine, {check.slot: repeated[rank]}).finding

        with ThreadPoolExecutor(3) as pool:
            (finding,) = set(pool.map(error, range(3)))
        return check, finding


@pytest.fixture
def ranks(monkeypatch):
    return Ranks(monkeypatch)


@pytest.mark.parametrize("faulty", ["owner", "verifier"])
def test_a_transient_fault_is_attributed_to_the_rank_whose_digest_differs(ranks, faulty):
    (check,) = ranks.schedules[0].of_step(10).checks
    assert check.verifier == 2
    wrong = HEALTHY.clone()
    wrong[: MAX_PARAMETERS + 2] += 1
    in_step = {check.owner: HEALTHY, check.verifier: HEALTHY} | {getattr(check, faulty): wrong}
    _, finding = ranks.finding(10, in_step, [HEALTHY] * 3)
    assert finding.ranks == (getattr(check, faulty),)
    assert (finding.is_certain, finding.is_reproducible) == (True, False)
    assert finding.parameters == tuple(NAMES[:MAX_PARAMETERS])
    assert finding.parameter_count == MAX_PARAMETERS + 2


def test_the_last_verified_step_is_the_last_check_of_all_suspects(ranks):
    """Rank 2 takes part in all checks, ranks 0 and 1 alternate."""
    first, second = (ranks.schedules[0].of_step(step).checks[0].owner for step in (10, 20))
    assert {first, second} == {0, 1}
    ranks.pass_check(10)
    in_step = {second: HEALTHY, 2: HEALTHY + 1}
    assert ranks.finding(20, in_step, [HEALTHY] * 3)[1].last_verified_step == 10
    disagreeing = [HEALTHY + rank for rank in range(3)]
    _, finding = ranks.finding(20, {rank: disagreeing[rank] for rank in (second, 2)}, disagreeing)
    assert set(finding.ranks) == {second, 2}
    assert finding.last_verified_step == 0
