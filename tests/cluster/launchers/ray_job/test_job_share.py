"""Decide the shares of jobs: single decisions, and a model of runners with old snapshots."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from cluster.launchers.ray_job.job_share import GIVE_SECONDS, NODE_SECONDS, JobShare
from cluster.ray.shares import ClusterSnapshot, Needs, NodeCapacity, SharingJob, target_ranks
from run_store.start import Claim


def job(
    name: str,
    least: int = 1,
    most: int = 4,
    *,
    held: int = 0,
    begun: bool | None = None,
    priority: int = 50,
    run: str | None = None,
) -> SharingJob:
    """Return a job. In its name, the letter is its owner, and the number its submission time."""
    needs = Needs(ranks=least, max_ranks=most, bundle={"CPU": 1.0}, cpus_of_workers=0.0)
    is_begun = held > 0 if begun is None else begun
    claim = Claim(owner=name[0], priority=priority)
    return SharingJob(name, run or name, float(name[1:]), claim, needs, is_begun, held)


def snapshot(*jobs: SharingJob, cpus: float = 4.0, nodes: int = 1) -> ClusterSnapshot:
    free = cpus - sum(one.held for one in jobs)
    empty = [NodeCapacity({"CPU": 0.0}, {"CPU": 0.0})] * (nodes - 1)
    return ClusterSnapshot(jobs, [NodeCapacity({"CPU": free}, {"CPU": cpus}), *empty])


@pytest.mark.parametrize(
    ("jobs", "reason"),
    [
        ([job("a1")], ""),
        ([job("b2"), job("a1", held=2)], ""),
        (
            [job("b2"), job("a1", held=4)],
            "capacity: it needs 1 × (1 CPU); 0 CPU on 1 node are free; a1 of a (priority 50) will "
            "give ranks",
        ),
        (
            [job("b2", priority=90), job("a1", 4, held=4)],
            "a1 of a (priority 50) keeps its smallest number of 4 ranks",
        ),
        ([job("b2"), job("c3", priority=90)], "c3 of c (priority 90) has a share of 4 ranks"),
        ([job("b2", 3), job("a1", 2, begun=True)], "a1 of a (priority 50) keeps its smallest"),
        ([job("b2"), job("a1"), job("c3", held=3)], "a1 of a (priority 50) will take ranks first"),
        (
            [job("b2", 8, 8)],
            "the whole cluster has only 4 CPU on 1 node, so the job waits",
        ),
        ([job("b2", run="r"), job("a1", run="r")], "its run, which a1 of a (priority 50) uses"),
        ([job("a1"), job("b2", run="a1")], ""),
    ],
)
def test_a_waiting_job_gives_its_reason(jobs: list[SharingJob], reason: str) -> None:
    """The reason is that of the first job; it is empty if this job does not wait."""
    found = JobShare(jobs[0].id, 300.0).waiting_reason(snapshot(*jobs), 0.0)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_job_that_ray_does_not_list_waits() -> None:
    assert "Ray's list of jobs" in JobShare("b2", 300.0).waiting_reason(snapshot(job("a1")), 0.0)


def test_a_waiting_job_gets_ranks_at_once_and_fairness_applies_after_a_delay() -> None:
    share = JobShare("a1", 300.0)
    assert share.target(snapshot(job("a1", begun=True)), 0.0).ranks == 4
    target = share.target(snapshot(job("a1", held=4), job("b2")), 1.0)
    assert (target.ranks, target.reason) == (2, "b2 of b (priority 50) waits for ranks")
    given = share.target(snapshot(job("a1", held=2), job("b2", held=2)), 2.0)
    assert given == target  # the reason of the last change is kept
    ended = share.target(snapshot(job("a1", held=2)), 3.0)
    assert (ended.ranks, ended.reason) == (4, "b2 of b (priority 50) has ended")

    unfair = snapshot(job("a1", held=3), job("b2", held=1))
    assert [share.target(unfair, now).ranks for now in (10.0, 309.0, 310.0)] == [3, 3, 2]
    assert share.target(unfair, 311.0).reason == "b2 of b (priority 50) has less"


def test_ranks_are_kept_if_no_other_job_can_use_them() -> None:
    share = JobShare("a1", 0.0)
    share.target(snapshot(job("a1", begun=True)), 0.0)
    assert share.target(snapshot(job("a1", held=4), cpus=3.0), 9.0).ranks == 4


def test_an_old_snapshot_never_raises_the_target() -> None:
    share = JobShare("a1", 300.0)
    share.target(snapshot(job("a1", begun=True)), 0.0)
    assert share.target(snapshot(job("a1", held=4), job("b2")), 1.0).ranks == 2
    assert share.target(snapshot(job("a1", held=4), job("b2", held=1)), 2.0).ranks == 2


def test_a_job_grows_onto_a_new_node_only_after_a_delay() -> None:
    share = JobShare("a1", 300.0)
    assert share.target(snapshot(job("a1", held=1)), 0.0).grows_at_once
    for now, nodes, at_once in (
        (1.0, 2, False),
        (NODE_SECONDS, 2, False),
        (1.0 + NODE_SECONDS, 2, True),
        (100.0, 1, True),
        (101.0, 2, False),  # the node returns
    ):
        assert share.target(snapshot(job("a1", held=1), nodes=nodes), now).grows_at_once == at_once


class Model:
    """A cluster whose jobs decide in random order, by snapshots that are up to 10 s old.

    No job sees an older snapshot than before.

    Like Ray, it gives each rank to one job at most. A driver that resizes its job gives all ranks
    first, and takes ranks at its next turn.
    """

    def __init__(self, seed: int, jobs: list[SharingJob], cpus: int) -> None:
        self.random = random.Random(seed)
        self.cpus, self.now, self.silent = cpus, 0.0, set[str]()
        self.jobs = {one.id: one for one in jobs}
        self.shares = {name: JobShare(name, 30.0) for name in self.jobs}
        self.history = [(0.0, self.look())]
        self.seen: dict[str, float] = {}
        self.moves: list[tuple[float, str, int]] = []

    def look(self) -> ClusterSnapshot:
        return snapshot(*self.jobs.values(), cpus=float(self.cpus))

    def set(self, name: str, **changes: object) -> None:
        self.jobs[name] = replace(self.jobs[name], **changes)  # type: ignore[arg-type]
        assert sum(one.held for one in self.jobs.values()) <= self.cpus

    def turn(self) -> None:
        self.now += self.random.uniform(0.0, 2.0)
        name = self.random.choice(list(self.jobs))
        own, share = self.jobs[name], self.shares[name]
        since = max(self.seen.get(name, 0.0), self.now - 10.0)
        self.seen[name], seen = self.random.choice([old for old in self.history if old[0] >= since])
        if not own.begun:
            if not share.waiting_reason(seen, self.now):
                self.set(name, begun=True)
        elif name not in self.silent:
            target = share.target(seen, self.now)
            most = min(own.largest, max(own.needs.ranks, target.ranks))
            free = self.cpus - sum(one.held for one in self.jobs.values())
            if own.held > most:
                self.set(name, held=0)
                free += own.held
            if own.held != most and own.needs.ranks <= (ranks := min(most, self.held(name) + free)):
                if ranks != own.held:
                    self.moves.append((self.now, name, ranks))
                self.set(name, held=ranks)
        self.history = [*self.history[-99:], (self.now, self.look())]

    def held(self, name: str) -> int:
        return self.jobs[name].held

    def until(self, time: float) -> None:
        while self.now < time:
            self.turn()

    def targets(self) -> Mapping[str, int]:
        jobs = [replace(one, keeps=one.id in self.silent) for one in self.jobs.values()]
        return target_ranks(jobs, self.look().nodes)


@pytest.mark.parametrize("seed", range(8))
def test_runners_reach_their_targets_and_stay_there(seed: int) -> None:
    """One job never gives ranks, and another ends after others have freed ranks for it."""
    jobs = [job("a1", 2, 8), job("b2", 1, 8), job("a3", 1, 2), job("c4", 1, 8, priority=60)]
    model = Model(seed, jobs[:2], cpus=8)
    model.until(200.0)
    assert {name: one.held for name, one in model.jobs.items()} == {"a1": 4, "b2": 4}
    model.silent.add("b2")
    for one in jobs[2:]:
        model.jobs[one.id], model.shares[one.id] = one, JobShare(one.id, 30.0)
    while not model.jobs["c4"].begun:  # until others have freed ranks for c4
        model.turn()
    del model.jobs["c4"]  # before c4 takes these ranks
    changed = model.now
    model.until(changed + GIVE_SECONDS + 200.0)
    settled = model.now
    targets = model.targets()
    assert {name: one.held for name, one in model.jobs.items()} == targets
    assert sum(targets.values()) == 8
    model.until(settled + 400.0)
    assert [move for move in model.moves if move[0] > settled] == []
    for name in model.jobs:
        moves = [move for move in model.moves if move[1] == name and move[0] > changed]
        assert len(moves) <= 3
