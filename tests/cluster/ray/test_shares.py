"""Targets of jobs: known results on small clusters, and invariants on random clusters."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ray.cluster_shares import sharing_job
from cluster.ray.jobs import Job
from cluster.ray.shares import Needs, NodeCapacity, SharingJob, target_ranks
from run_store.start import Claim


def job(
    name: str,
    least: int,
    most: int | None = None,
    *,
    priority: int = 50,
    begun: bool = False,
    held: int = 0,
    fixed: bool = False,
    weight: float = 1.0,
    cpus: float = 1.0,
    workers: float = 0.0,
    labels: Mapping[str, str] = {},
    bundle: Mapping[str, float] = {},
    run: str | None = None,
) -> SharingJob:
    """Return a job. In its name, the letter is its owner, and the number its submission time."""
    needs = Needs(
        ranks=least,
        max_ranks=most,
        bundle={"CPU": cpus, **bundle},
        cpus_of_workers=workers,
        node_labels=dict(labels),
    )
    claim = Claim(owner=name[0], priority=priority, weight=weight, fixed=fixed)
    return SharingJob(name, run or name, float(name[1:]), claim, needs, begun, held)


def nodes(*cpus: float, **labels: str) -> list[NodeCapacity]:
    return [NodeCapacity({}, {"CPU": amount}, labels) for amount in cpus]


@pytest.mark.parametrize(
    ("jobs", "cpus", "targets"),
    [
        ([job("a1", 1, 4)], (4.0,), [4]),
        ([job("a1", 1, 4), job("b2", 1, 4)], (4.0,), [2, 2]),
        ([job("a1", 1, 4), job("b2", 1, 4), job("a3", 1, 4)], (4.0,), [1, 2, 1]),
        ([job("a1", 1, 4), job("b2", 1, 4)], (2.0, 3.0), [3, 2]),  # of two equal jobs, a1 has more
        ([job("a1", 1, 4, weight=3.0), job("b2", 1, 4)], (4.0,), [3, 1]),
        ([job("a1", 1, 4), job("b2", 1, 4, priority=90)], (4.0,), [0, 4]),
        ([job("a1", 1, 4, begun=True), job("b2", 1, 4, priority=90)], (4.0,), [1, 3]),
        ([job("a1", 4, begun=True), job("b2", 1, priority=100)], (4.0,), [4, 0]),
        ([job("a1", 1, 4, begun=True, held=3, fixed=True), job("b2", 1, 4)], (4.0,), [3, 1]),
        ([job("a1", 1, 4, begun=True, held=2, fixed=True), job("b2", 1, 1)], (4.0,), [3, 1]),
        ([job("a1", 8), job("b2", 1)], (4.0,), [0, 1]),  # no capacity stays idle
        ([job("a1", 2, 4, cpus=1.5), job("b2", 1)], (2.0, 2.0), [2, 0]),
        ([job("a1", 2, 4, workers=1.0)], (4.0,), [3]),
        ([job("a1", 4, workers=1.0)], (4.0,), [0]),
        ([job("a1", 1, 4, run="r"), job("b2", 1, 4, run="r")], (4.0,), [4, 0]),
        ([job("a1", 1, 4, run="r"), job("b2", 1, 4, run="r", begun=True)], (4.0,), [0, 4]),
        ([job("a1", 1, bundle={"GPU": 1.0})], (4.0,), [0]),
        ([job("a1", 1, labels={"pool": "train"})], (4.0,), [0]),
        ([job("a1", 1, 4)], (), [0]),
    ],
)
def test_jobs_get_these_targets(
    jobs: list[SharingJob], cpus: tuple[float, ...], targets: list[int]
) -> None:
    assert list(target_ranks(jobs, nodes(*cpus)).values()) == targets


def test_ranks_go_only_to_nodes_with_their_labels_and_gpus() -> None:
    gpu = NodeCapacity({}, {"CPU": 2.0, "GPU": 2.0}, {"pool": "train"})
    jobs = [
        job("a1", 1, 9, bundle={"GPU": 1.0}),
        job("b2", 1, 9, labels={"pool": "serve"}),
        job("c3", 1, 9, labels={"pool": "none"}),
    ]
    assert target_ranks(jobs, [gpu, *nodes(3.0, pool="serve")]) == {"a1": 2, "b2": 3, "c3": 0}


jobs_of_a_team = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(1, 4),
        st.integers(0, 6),
        st.sampled_from((10, 50)),
        st.booleans(),
    ),
    max_size=7,
).map(
    lambda drawn: [
        job(f"{owner}{n}", least, least + more, priority=priority, begun=begun)
        for n, (owner, least, more, priority, begun) in enumerate(drawn, 1)
    ]
)


@given(jobs_of_a_team, st.lists(st.integers(0, 6).map(float), max_size=4), st.randoms())
def test_targets_of_jobs_with_equal_ranks_fulfil_the_invariants(
    jobs: list[SharingJob], cpus: list[float], order: random.Random
) -> None:
    targets = target_ranks(jobs, nodes(*cpus))
    left = sum(cpus) - sum(targets.values())
    assert left >= 0
    assert all(targets[one.id] in (0, *range(one.needs.ranks, one.largest + 1)) for one in jobs)
    # A job that has begun keeps its smallest number, unless those of earlier jobs fill the cluster.
    begun = sorted((one for one in jobs if one.begun), key=lambda one: one.precedence)
    room = int(sum(cpus))
    for one in begun:
        if one.needs.ranks <= room:
            assert targets[one.id]
            room -= one.needs.ranks
    # No capacity that a job could use is idle.
    for one in jobs:
        if targets[one.id] < one.largest:
            assert left < (1 if targets[one.id] else one.needs.ranks)
    # No job could still give a rank to a job of higher priority, or of an owner with fewer ranks.
    held = {
        (priority, owner): sum(
            targets[one.id]
            for one in jobs
            if one.claim.priority == priority and one.claim.owner == owner
        )
        for priority in (10, 50)
        for owner in "abc"
    }
    for giver in jobs:
        gives = targets[giver.id] > giver.needs.ranks
        for taker in jobs:
            takes = 0 < targets[taker.id] < taker.largest
            if gives and takes and giver is not taker:
                assert giver.claim.priority >= taker.claim.priority
                if giver.claim.priority == taker.claim.priority:
                    own, other = (
                        held[one.claim.priority, one.claim.owner] for one in (giver, taker)
                    )
                    if giver.claim.owner == taker.claim.owner:
                        own, other = targets[giver.id], targets[taker.id]
                    assert own <= other + 1
    # Targets depend neither on the order of the list nor on the ranks that jobs hold.
    others = [replace(one, held=order.randrange(9)) for one in jobs]
    order.shuffle(others)
    assert target_ranks(others, nodes(*cpus)) == targets
    # When all jobs with a target have begun, the targets stay the same.
    after = [replace(one, begun=one.begun or targets[one.id] > 0) for one in jobs]
    assert target_ranks(after, nodes(*cpus)) == targets


def water_level(most: list[int], capacity: int) -> Counter[int]:
    """Return ranks of jobs with different owners and a minimum of 1, by raising a common level."""
    ranks = [0] * len(most)
    while capacity and (open_jobs := [n for n in range(len(most)) if ranks[n] < most[n]]):
        ranks[min(open_jobs, key=lambda n: (ranks[n], n))] += 1
        capacity -= 1
    return Counter(dict(enumerate(ranks)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 40))
def test_owners_with_one_job_each_share_the_ranks_equally(most: list[int], capacity: int) -> None:
    jobs = [job(f"{chr(97 + n)}{n}", 1, largest) for n, largest in enumerate(most)]
    targets = target_ranks(jobs, nodes(float(capacity)))
    assert list(targets.values()) == list(water_level(most, capacity).values())


def test_jobs_with_different_resources_are_compared_by_dominant_share() -> None:
    """This is the example of Ghodsi et al., 2011, section 4.1."""
    cluster = [NodeCapacity({}, {"CPU": 9.0, "memory": 18.0})]
    jobs = [
        job("a1", 1, 9, bundle={"memory": 4.0}),
        job("b2", 1, 9, cpus=3.0, bundle={"memory": 1}),
    ]
    assert target_ranks(jobs, cluster) == {"a1": 3, "b2": 2}


def listed(**metadata: str) -> Job:
    return Job("a-1", "RUNNING", "", "", 7.0, None, None, metadata)


@pytest.mark.parametrize(
    ("claim", "needs"),
    [
        ('{"priority": -1}', None),
        ('{"priority": 101}', None),
        ('{"priority": 1e999}', None),
        ('{"owner": "\\u001b[2Jroot"}', None),
        ('{"owner": "<script>"}', None),
        ('{"owner": "=HYPERLINK(1)"}', None),
        ('{"owner": "a\\"} 1"}', None),
        ('{"weight": 0}', None),
        ("{}", '{"ranks": 1, "bundle": {}, "cpus_of_workers": 0}'),
        ("{}", '{"ranks": 1000000, "bundle": {"CPU": 1}, "cpus_of_workers": 0}'),
        ("no JSON", None),
    ],
)
def test_a_job_with_an_invalid_claim_is_ignored(claim: str, needs: str | None) -> None:
    valid = Needs(ranks=1, bundle={"CPU": 1.0}, cpus_of_workers=0.0).model_dump_json()
    job = sharing_job(listed(run="/r/", claim="{}", needs=valid), 2, True)
    assert job is not None
    assert job.run == "/r"
    assert sharing_job(listed(run="/r", claim=claim, needs=needs or valid), 2, True) is None
    assert sharing_job(listed(run="/r"), 0, False) is None
