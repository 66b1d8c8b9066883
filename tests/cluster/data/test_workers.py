"""The data workers of a run: their number, those that serve, and their statistics."""

from types import SimpleNamespace

import pytest
from support.cluster.scripted_ray import DEAD, Answer, ScriptedActor, ScriptedRay

from cluster.data import workers as data_workers
from cluster.data.workers import (
    HEARTBEAT_SECONDS,
    HEARTBEAT_TIMEOUT_SECONDS,
    DataWorkers,
    WorkerHandle,
    WorkerMonitor,
    WorkerStatistics,
    worker_numbers,
)
from cluster.ray.cluster_view import Node


class StartedActors:
    """Factory that records the started actors, in order, and the CPUs that each reserves."""

    def __init__(self):
        self.actors = []
        self.cpus = []

    def options(self, *, num_cpus):
        self.cpus.append(num_cpus)
        return self

    def remote(self, *arguments):
        self.actors.append(ScriptedActor())
        self.arguments = arguments
        return self.actors[-1]

    @property
    def ended(self):
        return [n for n, one in enumerate(self.actors) if one.calls["__ray_terminate__"]]


@pytest.fixture
def scripted_ray(monkeypatch):
    scripted = ScriptedRay()
    monkeypatch.setattr(data_workers, "ray", scripted)
    return scripted


@pytest.fixture
def started(monkeypatch, scripted_ray):
    actors = StartedActors()
    monkeypatch.setattr(data_workers, "DataWorker", actors)
    return actors


def some(count, cpus=0.0):
    workers = DataWorkers("the settings", "identity", cpus=cpus, cache_bytes=7)
    workers.start(count)
    return workers


def node(cpus):
    return Node("a", "a", {"CPU": cpus}, {"CPU": 8.0})


def serving(workers):
    return [handle.number for handle in workers.handles]


def test_the_first_workers_serve_at_once(started):
    workers = some(2, cpus=0.5)
    assert serving(workers) == [0, 1]
    assert workers.actors == started.actors
    assert started.cpus == [0.5, 0.5]
    assert started.arguments[:3] == ("the settings", "identity", 7)


def answer(workers, *worker_numbers):
    """Give the first answer of the given workers, which are starting."""
    for handle, first in workers._starting:
        if handle.number in worker_numbers:
            first.come()


def test_new_workers_serve_after_their_first_answer_and_are_started_once(started):
    workers = some(1)
    assert workers.resize(4, []) == 4
    assert workers.resize(4, []) == 4
    assert len(started.actors) == 4
    assert serving(workers) == [0]
    answer(workers, 2)
    workers.admit()
    workers.admit()
    assert serving(workers) == [0, 2]
    answer(workers, 1, 3)
    workers.admit()
    assert serving(workers) == [0, 2, 1, 3]
    assert worker_numbers(workers.handles) == "0, 1, 2, 3"
    assert workers.resize(4, []) == 4


def test_surplus_workers_end_newest_first_and_still_get_heartbeats(started):
    workers = some(2)
    workers.resize(4, [])
    assert workers.resize(1, []) == 1
    assert started.ended == [1, 2, 3]
    assert serving(workers) == [0]
    assert set(map(id, workers.actors)) == set(map(id, started.actors))
    assert workers.resize(2, []) == 2
    assert len(started.actors) == 5  # a worker that was asked to end is not used again


@pytest.mark.parametrize(
    ("free", "wanted", "granted"),
    [([1.0, 0.9], 5, 4), ([8.0], 5, 5), ([0.4], 2, 1), ([], 3, 1), ([0.0], 0, 0)],
)
def test_the_free_cpus_of_nodes_limit_the_number_of_workers_that_reserve_cpus(
    started, free, wanted, granted
):
    workers = some(1, cpus=0.5)
    assert workers.resize(wanted, [node(cpus) for cpus in free]) == granted
    assert len(started.actors) - len(started.ended) == granted


def test_workers_that_do_not_start_are_killed_and_the_others_stay(started, scripted_ray):
    workers = some(1)
    workers.resize(3, [])
    assert workers.cancel_starting() == 2
    assert scripted_ray.killed == started.actors[1:]
    assert workers.cancel_starting() == 0
    assert workers.actors == started.actors[:1]
    assert workers.resize(1, []) == 1


def test_workers_are_responsive_only_if_each_answers_within_a_heartbeat(started, scripted_ray):
    workers = some(2)
    first, second = started.actors
    first.answers["process_id"] = [Answer(1), Answer(1)]
    second.answers["process_id"] = [Answer(2)]
    assert workers.all_responsive()
    assert not workers.all_responsive()
    assert scripted_ray.waits == [HEARTBEAT_SECONDS]


def test_statistics_of_each_worker_are_reported(started):
    workers = some(3)
    statistics = WorkerStatistics(process_id=12, node="0123abcd", windows_read=5)
    started.actors[0].answers["statistics"] = [Answer(statistics)]
    started.actors[1].answers["statistics"] = [Answer(DEAD)]
    assert workers.windows_read_text() == (
        "windows read by data workers since their start: worker 0 (process 12, node 0123abcd) 5, "
        "worker 1 does not answer, worker 2 does not answer"
    )


def test_a_worker_s_silence_is_counted_from_its_last_answer(scripted_ray):
    first = WorkerStatistics(process_id=1, node="a", windows_read=1)
    second = WorkerStatistics(process_id=1, node="a", windows_read=2)
    actor = ScriptedActor(statistics=[Answer(first), Answer(DEAD), Answer(second)])
    workers, signs = [WorkerHandle(3, actor)], WorkerMonitor()

    def poll(now):
        (sign,) = signs.poll(workers, now)
        assert sign.number == 3
        return sign.statistics, sign.silent_seconds

    assert poll(100.0) == (None, 0.0)
    assert poll(102.0) == (first, 0.0)
    assert poll(104.0) == (first, 2.0)  # the worker has died; its successor has not answered
    assert poll(106.0) == (second, 0.0)
    assert poll(108.0) == (second, 2.0)
    assert len(actor.calls["statistics"]) == 4  # a pending request is not repeated
    (sign,) = signs.poll(workers, 106.0 + HEARTBEAT_TIMEOUT_SECONDS - 0.1)
    assert sign.is_alive
    (sign,) = signs.poll(workers, 106.0 + HEARTBEAT_TIMEOUT_SECONDS)
    assert not sign.is_alive


def test_statistics_of_ended_workers_are_dropped(scripted_ray):
    statistics = WorkerStatistics(process_id=1, node="a", windows_read=1)
    stays = ScriptedActor(statistics=[Answer(statistics)])
    leaves = ScriptedActor(statistics=[Answer(statistics)])
    signs = WorkerMonitor()
    both = [WorkerHandle(0, stays), WorkerHandle(1, leaves)]
    for now in (0.0, 1.0):
        signs.poll(both, now)
    signs.poll(both[:1], 2.0)
    again = SimpleNamespace(statistics=ScriptedActor().statistics)
    sign = signs.poll([both[0], WorkerHandle(1, again)], 3.0)[1]
    assert (sign.statistics, sign.silent_seconds) == (None, 0.0)
