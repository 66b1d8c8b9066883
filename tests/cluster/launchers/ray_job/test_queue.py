"""Whose turn it is, on clusters that are described in a line."""

import pytest

from cluster.launchers.ray_job.job_record import Needs
from cluster.launchers.ray_job.queue import NodeCapacity, QueuedJob, waiting_reason


def needs(ranks: int, cpus: float = 1.0, gpus: int = 0, workers: float = 0.0) -> Needs:
    bundle = {"CPU": cpus} | ({"GPU": float(gpus)} if gpus else {})
    return Needs(ranks=ranks, bundle=bundle, cpus_of_workers=workers)


def nodes(*free: float, total: float = 8.0) -> list[NodeCapacity]:
    return [NodeCapacity({"CPU": amount}, {"CPU": total}) for amount in free]


MINE = QueuedJob("mine", 5.0, "WAITING", needs(2))


@pytest.mark.parametrize(
    ("wanted", "free", "goes"),
    [
        (needs(2), (2.0,), True),
        (needs(2), (1.0, 1.0), True),
        (needs(3), (1.0, 1.0), False),
        (needs(2, cpus=1.5), (2.0, 1.0), False),  # enough in all, but not where a rank fits
        (needs(4, cpus=0.5), (2.0,), True),
        (needs(2, workers=1.0), (2.0,), False),
        (needs(2, workers=1.0), (3.0,), True),
        (needs(1, gpus=1), (8.0,), False),
    ],
)
def test_a_job_alone_needs_room_for_its_ranks(
    wanted: Needs, free: tuple[float, ...], goes: bool
) -> None:
    assert (waiting_reason("mine", wanted, [MINE], nodes(*free)) == "") == goes


def test_a_gpu_is_taken_where_it_is() -> None:
    node = NodeCapacity({"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 2.0})
    assert waiting_reason("mine", needs(2, gpus=1), [MINE], [node]) == ""
    told = waiting_reason("mine", needs(3, gpus=1), [MINE], [node])
    assert "it needs 3 × (1 CPU and 1 GPU); 4 CPU and 2 GPU on 1 node are free" in told
    assert "the whole cluster has only 4 CPU and 2 GPU on 1 node, so the job waits" in told


def test_resources_of_racks_and_labels_of_nodes_count() -> None:
    wanted = Needs(
        ranks=2,
        bundle={"CPU": 1.0, "rack_a": 1.0},
        cpus_of_workers=0.0,
        node_labels={"pool": "train"},
    )
    amounts = {"CPU": 4.0, "rack_a": 2.0}
    there, other = (NodeCapacity(amounts, amounts, {"pool": pool}) for pool in ("train", "serve"))
    assert waiting_reason("mine", wanted, [MINE], [there]) == ""
    begun = QueuedJob("begun", 4.0, "STARTING", wanted)
    for nodes_here in ([other], [NodeCapacity({"CPU": 4.0}, {"CPU": 4.0}, {"pool": "train"})]):
        told = waiting_reason("mine", wanted, [MINE], nodes_here)
        assert "it needs 2 × (1 CPU and 1 rack_a) on nodes with pool=train" in told
        assert "the job waits for more nodes" in told
    assert "capacity" in waiting_reason("mine", wanted, [MINE, begun], [there, other])


@pytest.mark.parametrize("state", ["PENDING", "WAITING"])
def test_a_job_submitted_before_goes_first_however_large(state: str) -> None:
    large = QueuedJob("large", 4.0, state, needs(100) if state == "WAITING" else None)
    told = waiting_reason("mine", needs(1), [MINE, large], nodes(8.0))
    assert told.startswith("large, submitted before it; it needs 1 × (1 CPU); 8 CPU")


@pytest.mark.parametrize(
    ("other", "goes"),
    [
        (QueuedJob("later", 6.0, "WAITING", needs(1)), True),
        (QueuedJob("trains", 1.0, "RUNNING", needs(8)), True),  # what it holds is not free any more
        (QueuedJob("begins", 1.0, "STARTING", needs(6)), True),
        (QueuedJob("begins", 9.0, "STARTING", needs(7)), False),
    ],
)
def test_what_other_jobs_have_or_are_about_to_take(other: QueuedJob, goes: bool) -> None:
    told = waiting_reason("mine", needs(2), [MINE, other], nodes(8.0))
    assert (told == "") == goes
    if not goes:
        assert "another job is about to take what it needs" in told


def test_equal_times_are_told_apart_by_the_ids_for_all_alike() -> None:
    jobs = [QueuedJob(name, 1.0, "WAITING", needs(1)) for name in ("b", "a", "c")]
    assert [name for name in "abc" if not waiting_reason(name, needs(1), jobs, nodes(8.0))] == ["a"]


def test_a_job_that_begins_is_counted_once_however_many_nodes_fit() -> None:
    begun = QueuedJob("begins", 1.0, "STARTING", needs(2))
    assert waiting_reason("mine", needs(2), [MINE, begun], nodes(2.0, 2.0)) == ""
    assert waiting_reason("mine", needs(3), [MINE, begun], nodes(2.0, 2.0)) != ""
