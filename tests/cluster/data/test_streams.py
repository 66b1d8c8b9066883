"""Streams that ranks get from data workers, compared with the same stream read in this process."""

import os
import signal
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import ray
from support.cluster.sabotage import kill, process_ids
from support.files.faulty_server import Fault, FaultyServer

from cluster.data import worker_client
from cluster.data.node_layouts import NodeLayouts, NodeSharing
from cluster.data.streams import WorkerStreams
from cluster.data.worker_client import WORKER_TIMEOUT_SECONDS, WorkerClient
from cluster.data.workers import DataWorkers, WorkerHandle
from cluster.errors import ClusterError
from cluster.health.watchdog import HeartbeatSender
from cluster.ray.session import ray_session
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.errors import DatasetFileError

STEPS = 200  # more than an epoch
STEPS_OF_RANKS = 60
SLOTS = 5
MANY_BYTES = 100_000_000


@pytest.fixture(scope="module")
def expected(settings):
    store, manifest = open_dataset(settings.data)
    reader = WindowReader(store, manifest, settings)
    return list(islice(local_rank_steps(reader, Cursor(), 0, 1, SLOTS), STEPS))


@pytest.fixture(scope="module")
def all_workers(ray_head):
    """Return the list of all tests' workers in one Ray session; each test adds its workers."""
    started = []

    def actors():
        return [actor for workers in started for actor in workers.actors]

    with ray_session(ray_head.address), HeartbeatSender(actors):
        yield started


@pytest.fixture
def workers(settings, all_workers):
    """Return a function that starts workers, which end with the test."""

    def start(count, settings=settings, cache_bytes=MANY_BYTES):
        identity = open_dataset(settings.data)[1].identity
        started = DataWorkers(settings, identity, cpus=0, cache_bytes=cache_bytes)
        started.start(count)
        all_workers.append(started)
        return started

    yield start
    while all_workers:
        for actor in all_workers.pop().actors:
            ray.kill(actor)


def steps_of(client, bytes_ahead=MANY_BYTES):
    streams = WorkerStreams(
        client, rank=0, ranks=1, slots=SLOTS, steps_ahead=4, bytes_ahead=bytes_ahead
    )
    return streams.open(Cursor())


def check_equal(steps, expected):
    for step, reference in zip(steps, expected, strict=True):
        assert step.cursor == reference.cursor
        assert step.units == reference.units
        for ours, theirs in zip(step.micro_batches, reference.micro_batches, strict=True):
            assert np.array_equal(ours.pair_ids, theirs.pair_ids)
            for name, field in theirs.fields.items():
                assert np.array_equal(ours.fields[name].ids, field.ids)
                assert np.array_equal(ours.fields[name].lengths, field.lengths)


# The test of workers that join and leave compares the stream of one worker.
@pytest.mark.parametrize(("count", "bytes_ahead"), [(3, MANY_BYTES), (2, 1)])
def test_several_workers_give_the_stream_of_one_process(workers, expected, count, bytes_ahead):
    """The streams are also equal if memory has room for only one window."""
    handles = workers(count, cache_bytes=bytes_ahead).handles
    steps = islice(steps_of(WorkerClient(handles, print), bytes_ahead), STEPS)
    check_equal(list(steps), expected)


def test_a_rank_can_request_slots_of_other_ranks(workers, expected):
    client = WorkerClient(workers(2).handles, print)
    streams = WorkerStreams(
        client, rank=1, ranks=3, slots=SLOTS, steps_ahead=2, bytes_ahead=MANY_BYTES
    )
    for step, whole in zip(streams.open(Cursor()), expected[:8], strict=False):
        requested = [step.request(slot) for slot in range(SLOTS)]
        received = [micro_batch() for micro_batch in requested]
        check_equal([replace(whole, micro_batches=received)], [whole])


@ray.remote(num_cpus=0, concurrency_groups={"control": 1})
class Agent:
    """Layout requests of a node's agent; records the requested windows."""

    def __init__(self):
        self.layouts = NodeLayouts()
        self.asked = []

    def layout(self, worker, attempt, epoch, window):
        self.asked.append((epoch, window))
        return self.layouts.reference(worker, attempt, epoch, window)

    def windows(self):
        return self.asked

    @ray.method(concurrency_group="control")
    def process_id(self):
        return os.getpid()


class Node:
    """Ranks of one node, which read their steps in turns."""

    def __init__(self, agent, handles, ranks, world_size):
        self.notices = []
        self.ranks = []
        for rank in ranks:
            client = WorkerClient(handles, self.notices.append)
            client.sharing = NodeSharing(agent, "attempt")
            streams = WorkerStreams(
                client,
                rank=rank,
                ranks=world_size,
                slots=SLOTS,
                steps_ahead=4,
                bytes_ahead=MANY_BYTES,
            )
            self.ranks.append(streams.open(Cursor()))

    def steps(self, count):
        """Return the next `count` steps of each rank."""
        in_turns = [[next(rank) for rank in self.ranks] for _ in range(count)]
        return [list(steps) for steps in zip(*in_turns, strict=True)]


@pytest.fixture
def agent(all_workers):
    agent = Agent.remote()
    yield agent
    ray.kill(agent)


@pytest.fixture(scope="module")
def expected_of_ranks(settings):
    """Return the steps of ranks 1 to 3 of 4, read in this process."""
    store, manifest = open_dataset(settings.data)
    reader = WindowReader(store, manifest, settings)
    return [
        list(islice(local_rank_steps(reader, Cursor(), rank, 4, SLOTS), STEPS_OF_RANKS))
        for rank in (1, 2, 3)
    ]


def test_the_agent_requests_layouts_for_all_ranks_of_its_node(workers, agent, expected_of_ranks):
    node = Node(agent, workers(2).handles, (1, 2, 3), 4)
    for steps, expected in zip(node.steps(STEPS_OF_RANKS), expected_of_ranks, strict=True):
        check_equal(steps, expected)
    windows = Counter(ray.get(agent.windows.remote()))
    assert len(windows) > 3
    assert set(windows.values()) == {3}
    assert node.notices == []


@ray.remote(num_cpus=0)
class Unreadable:
    """Data worker whose first read of each window fails."""

    def __init__(self):
        self.requests = []

    def layout(self, epoch, window):
        self.requests.append(window)
        if self.requests.count(window) == 1:
            raise DatasetFileError("shards/0", "a readable file", "an input/output error")
        return epoch, window

    def windows(self):
        return self.requests


def test_an_agent_forgets_failed_layout_requests(agent):
    """A read error that occurs once reaches no rank, whether the rank asks before or after the
    error.
    """
    worker = Unreadable.remote()
    clients = [WorkerClient([WorkerHandle(0, worker)], print) for _ in range(3)]
    for client in clients:
        client.sharing = NodeSharing(agent, "attempt")
    early = [client.ask_for_layout(0, 5) for client in clients[:2]]
    ray.wait([ray.get(early[0].reference)])
    for client, request in zip(clients, early, strict=False):
        assert client.answer(request) == (0, 5)
    assert clients[2].answer(clients[2].ask_for_layout(0, 5)) == (0, 5)
    # The worker read the window four times: for the first request, for each of the two ranks that
    # got its error, and for the agent's request for the third rank.
    assert ray.get(worker.windows.remote()) == [5, 5, 5, 5]
    ray.kill(worker)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_ranks_ask_data_workers_directly_after_their_agent_is_lost(
    workers, agent, expected_of_ranks, how, monkeypatch
):
    node = Node(agent, workers(2).handles, (1, 2, 3), 4)
    received = node.steps(20)
    process_id = ray.get(agent.process_id.remote())
    monkeypatch.setattr(worker_client, "AGENT_SECONDS", 1.0)
    os.kill(process_id, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    rest = node.steps(STEPS_OF_RANKS - 20)
    if how == "stopped":
        os.kill(process_id, signal.SIGKILL)
    for first, last, expected in zip(received, rest, expected_of_ranks, strict=True):
        check_equal(first + last, expected)
    assert (
        node.notices == ["the node's agent is lost; asking data workers for layouts without it"] * 3
    )


def test_a_killed_worker_is_replaced_for_all_ranks_of_a_node(workers, agent, expected_of_ranks):
    started = workers(2)
    node = Node(agent, started.handles, (1, 2, 3), 4)
    received = node.steps(20)
    for process_id in process_ids(started):
        kill(process_id)
    rest = node.steps(STEPS_OF_RANKS - 20)
    for first, last, expected in zip(received, rest, expected_of_ranks, strict=True):
        check_equal(first + last, expected)
    assert any("was lost" in notice for notice in node.notices)


def test_the_bytes_of_windows_requested_ahead_are_bounded(workers, settings):
    asked = []

    class Listening(WorkerClient):
        def ask(self, method, coordinate, *arguments):
            asked.append((method, coordinate))
            return super().ask(method, coordinate, *arguments)

    handles = workers(1).handles
    next(steps_of(Listening(handles, print), bytes_ahead=MANY_BYTES))
    # This step and the 4 after it are fetched; one of them may span two windows. Layouts of 2 more
    # windows are requested.
    assert [method for method, _ in asked].count("fetch") in (5, 6)
    assert [window for method, (_, window) in asked if method == "layout"] == [0, 1, 2, 3]
    asked.clear()
    next(steps_of(Listening(handles, print), bytes_ahead=1))
    assert [method for method, _ in asked].count("fetch") == 1
    assert [window for method, (_, window) in asked if method == "layout"] == [0]


def test_a_worker_whose_sources_differ_from_the_driver_s_refuses_to_batch(workers):
    changed = workers(0)
    changed._arguments = (*changed._arguments[:-1], "0" * 64)
    changed.start(1)
    handles = changed.handles
    with pytest.raises(ClusterError, match=r"another transloom .* expected 000000000000….*submit"):
        next(steps_of(WorkerClient(handles, print)))


def test_requests_of_killed_workers_are_sent_again_with_a_notice(workers, expected):
    started = workers(2)
    notices = []
    steps = steps_of(WorkerClient(started.handles, notices.append))
    received = list(islice(steps, 10))
    for process_id in process_ids(started):
        kill(process_id)
    received += islice(steps, STEPS - 10)
    check_equal(received, expected)
    assert any("was lost" in notice for notice in notices)


def test_workers_that_hang_are_restarted(workers, expected):
    """First one of two workers hangs while the other answers, then the reverse."""
    started = workers(2)
    notices = []

    def notice(text):
        notices.append(text)
        client._timeout_seconds = WORKER_TIMEOUT_SECONDS  # allows for slow workers and restarts

    client = WorkerClient(started.handles, notice)
    steps = steps_of(client)
    received = list(islice(steps, 10))
    for process_id, last in zip(process_ids(started), (100, STEPS), strict=True):
        os.kill(process_id, signal.SIGSTOP)
        client._timeout_seconds = 1.0
        received += islice(steps, last - len(received))
    check_equal(received, expected)
    for number in (0, 1):
        hangs = f"data worker {number} has not answered for 1 s and hangs"
        assert any(hangs in notice for notice in notices)


def test_a_rank_raises_an_error_if_no_data_worker_answers(workers):
    started = workers(1)
    notices = []
    client = WorkerClient(started.handles, notices.append)
    steps = steps_of(client)
    next(steps)
    client.give_up_seconds = 1.0
    (worker,) = process_ids(started)
    os.kill(worker, signal.SIGSTOP)
    try:
        with pytest.raises(ClusterError, match=r"No data worker has answered for 1 s \(fetch of"):
            list(islice(steps, STEPS))
        assert notices == []
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_stream_stays_the_same_when_workers_join_and_leave(workers, expected):
    started = workers(1)
    client = WorkerClient(started.handles, print)
    steps = steps_of(client)
    received = list(islice(steps, 10))
    started.resize(3, nodes=[])
    ray.get([answer for _, answer in started._starting])
    started.admit()
    assert [handle.number for handle in started.handles] == [0, 1, 2]
    client.workers = started.handles
    received += islice(steps, 60)
    assert ") 0" not in started.windows_read_text()  # all three workers have read windows
    started.resize(1, nodes=[])
    client.workers = started.handles
    received += islice(steps, STEPS - 70)
    check_equal(received, expected)


def test_faults_of_the_dataset_server_do_not_change_the_stream(
    workers, settings, expected, phrasebook, tmp_path
):
    with FaultyServer(phrasebook) as server:
        remote = settings.data.model_copy(
            update={"dataset": server.url, "cache": str(tmp_path / "cache")}
        )
        started = workers(2, settings=replace(settings, data=remote))
        server.fail_randomly(0.15, seed=1, faults=[Fault.UNAVAILABLE, Fault.RESET, Fault.BIT_FLIP])
        check_equal(list(islice(steps_of(WorkerClient(started.handles, print)), STEPS)), expected)
        assert sum(server.faults.values()) > 0


def test_a_lasting_fault_is_raised_as_the_worker_s_error(workers, settings, phrasebook, tmp_path):
    with FaultyServer(phrasebook) as server:
        remote = settings.data.model_copy(
            update={"dataset": server.url, "cache": str(tmp_path / "cache")}
        )
        started = workers(1, settings=replace(settings, data=remote))
        for shard in open_dataset(settings.data)[1].shards:
            server.fail(Fault.BIT_FLIP, file=shard.name)
        with pytest.raises(DatasetFileError, match=r"shards/train-\d+\.tar.*expected sha256"):
            next(steps_of(WorkerClient(started.handles, print)))
