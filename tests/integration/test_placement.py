"""Where ranks are put changes no sample: spread over nodes, or on those with certain labels."""

import pytest

from cluster.errors import ClusterError
from trainer.runs.folder import RunFolder
from trainer.runs.place import read_place

STEPS = 10
OPTIONS = ["cluster.cpus_per_rank=1", f"trainer.max_steps={STEPS}"]


@pytest.fixture
def node(ray_head):
    """A node of two CPUs beside the head, which has four."""
    node = ray_head.add_node(2, "--labels=pool=train", '--resources={"rack": 2}')
    yield node
    node.kill()


def places(runs, name):
    return read_place(RunFolder(runs.folder / name)).nodes


@pytest.mark.usefixtures("node")
def test_data_are_the_same_wherever_the_ranks_are(runs, undisturbed):
    runs.train("spread", "cluster.ranks=3", "cluster.placement=spread", *OPTIONS)
    there = ["cluster.node_labels={pool: train}", "cluster.resources_per_rank={rack: 1}"]
    runs.train("there", "cluster.ranks=2", *there, *OPTIONS)
    spread, packed = places(runs, "spread"), places(runs, "there")
    assert sorted(spread.values()) == [1, 2]
    assert list(packed.values()) == [2]
    for name, ranks in (("spread", 3), ("there", 2)):
        assert {line["world_size"] for line in runs.lines(name)} == {ranks}
        assert runs.digests(name) == undisturbed.digests("undisturbed")[:STEPS]
        whole = undisturbed.curve("undisturbed")[:STEPS]
        assert runs.curve(name) == pytest.approx(whole, rel=1e-5)
    wanted = ["cluster.resources_per_rank={rack: 3}", "cluster.wait_for_ranks_seconds=0"]
    with pytest.raises(ClusterError) as error:
        runs.train("nowhere", "cluster.ranks=1", *wanted, *OPTIONS)
    assert "can never hold more than 0 ranks with 1 CPU, 0 GPUs and rack 3" in str(error.value)
    assert "has CPU 2, GPU 0, rack 2 and pool=train labels" in str(error.value)
