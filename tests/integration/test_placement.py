"""Placement and number of ranks change no sample: spread over nodes, or on labelled nodes."""

import pytest

from cluster.errors import ClusterError
from run_store.record.run_status import run_status_of

OPTIONS = ["cluster.cpus_per_rank=1"]


@pytest.fixture
def node(ray_head):
    """Yield a node of two CPUs, next to the head, which has four."""
    node = ray_head.add_node(2, "--labels=pool=train", '--resources={"rack": 2}')
    yield node
    node.kill()


def places(runs, name):
    return run_status_of(runs.folder / name).nodes


@pytest.mark.usefixtures("node")
def test_data_are_the_same_for_any_placement_of_the_ranks(runs, undisturbed):
    """Three ranks train 30 steps of 5 micro-batches, which 3 ranks do not divide evenly."""
    long = ["cluster.ranks=3", "cluster.placement=spread", "trainer.max_steps=30"]
    runs.train("spread", *long, *OPTIONS)
    there = ["cluster.node_labels={pool: train}", "cluster.resources_per_rank={rack: 1}"]
    runs.train("there", "cluster.ranks=2", "trainer.max_steps=10", *there, *OPTIONS)
    spread, packed = places(runs, "spread"), places(runs, "there")
    assert sorted(spread.values()) == [1, 2]
    assert list(packed.values()) == [2]
    for name, ranks, steps in (("spread", 3, 30), ("there", 2, 10)):
        lines, whole = runs.lines(name), undisturbed.lines("undisturbed")[:steps]
        assert {line["world_size"] for line in lines} == {ranks}
        for value in ("data_digest", "target_tokens"):
            assert [line[value] for line in lines] == [line[value] for line in whole]
        expected = undisturbed.curve("undisturbed")[:steps]
        assert runs.curve(name) == pytest.approx(expected, rel=1e-5)
    wanted = ["cluster.resources_per_rank={rack: 3}", "cluster.wait_for_ranks_seconds=0"]
    with pytest.raises(ClusterError) as error:
        runs.train("nowhere", "cluster.ranks=1", *wanted, *OPTIONS)
    assert "can never hold more than 0 ranks with 1 CPU, 0 GPUs and rack 3" in str(error.value)
    assert "has CPU 2, GPU 0, rack 2 and pool=train labels" in str(error.value)
