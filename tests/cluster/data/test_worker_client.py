"""Choose a data worker per request, retry, and give up, without Ray; read each rank's stream."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import RayTaskError
from support.cluster.scripted_ray import DEAD, Answer, ScriptedActor, ScriptedRay, pending

from cluster.data import worker_client
from cluster.data.node_layouts import NodeSharing
from cluster.data.streams import WorkerStreams
from cluster.data.worker_client import (
    AGENT_SECONDS,
    HEARTBEAT_SECONDS,
    MAX_RETRIES_BEFORE_ERROR,
    RESTART_SECONDS,
    RETRY_SECONDS,
    WORKER_TIMEOUT_SECONDS,
    WorkerClient,
)
from cluster.data.workers import WorkerHandle
from cluster.errors import ClusterError
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.errors import DatasetFileError

HERE = (0, 0)  # an epoch and a window
DAMAGED = DatasetFileError("shard", "found", "expected")


class TimedRay(ScriptedRay):
    """Ray whose clock advances while a client waits for answers that do not arrive."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.restarted = []

    def wait(self, answers, num_returns=1, timeout=None):
        come, rest = super().wait(answers, num_returns, timeout)
        if not come and timeout:
            self.now += timeout
        return come, rest

    def kill(self, actor, no_restart=True):
        (self.killed if no_restart else self.restarted).append(actor)

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def timed(monkeypatch):
    timed = TimedRay()
    monkeypatch.setattr(worker_client, "ray", timed)
    clock = SimpleNamespace(monotonic=lambda: timed.now, sleep=timed.sleep)
    monkeypatch.setattr(worker_client, "time", clock)
    return timed


def client_of(*actors):
    """Return a client of these workers, and the list of its notices."""
    notices = []
    handles = [WorkerHandle(number, actor) for number, actor in enumerate(actors)]
    return WorkerClient(handles, notices.append), notices


def raised(error):
    return Answer(RayTaskError("fetch", "a traceback", error))


@pytest.mark.parametrize(("coordinate", "asked"), [((0, 0), 0), ((0, 1), 1), ((0, 2), 0)])
def test_windows_are_distributed_over_the_workers(timed, coordinate, asked):
    actors = [ScriptedActor(fetch=[Answer("data")]) for _ in range(2)]
    client, notices = client_of(*actors)
    request = client.ask("fetch", coordinate, "the span", 7)
    assert client.answer(request) == "data"
    assert actors[asked].calls["fetch"] == [("the span", 7)]
    assert actors[1 - asked].calls["fetch"] == []
    assert notices == []


def test_consecutive_epochs_begin_with_different_workers(timed):
    actors = [ScriptedActor(), ScriptedActor()]
    client, _ = client_of(*actors)
    for epoch in range(2):
        client.ask("layout", (epoch, 0))
    assert [len(actor.calls["layout"]) for actor in actors] == [1, 1]


def test_a_dead_worker_gets_no_requests_until_it_answers_again(timed):
    back = pending()
    dead = ScriptedActor(fetch=[Answer(DEAD)], process_id=[back])
    other = ScriptedActor(fetch=[Answer("data"), Answer("more"), Answer("again")])
    client, notices = client_of(dead, other)
    assert client.answer(client.ask("fetch", HERE)) == "data"
    assert notices == [
        "data worker 0 was lost; sending its request (fetch of window 0 of epoch 0) to data "
        "worker 1"
    ]
    assert client.answer(client.ask("fetch", HERE)) == "more"
    dead.answers["fetch"] = [Answer("from the next process")]
    back.come(12)
    assert client.answer(client.ask("fetch", HERE)) == "from the next process"


def test_a_worker_that_dies_during_its_restart_is_polled_again(timed):
    first = pending()
    dead = ScriptedActor(fetch=[Answer(DEAD)], process_id=[first])
    other = ScriptedActor(fetch=[Answer("data"), Answer("more")])
    client, _ = client_of(dead, other)
    client.answer(client.ask("fetch", HERE))
    first.come(DEAD)
    assert client.answer(client.ask("fetch", HERE)) == "more"
    assert len(dead.calls["process_id"]) == 2


def test_the_only_worker_is_asked_again_after_it_was_lost(timed):
    alone = ScriptedActor(fetch=[Answer(DEAD), Answer("data")])
    client, notices = client_of(alone)
    assert client.answer(client.ask("fetch", HERE)) == "data"
    assert len(notices) == 1
    assert timed.now == 1000.0


def test_only_the_first_loss_of_a_request_is_reported(timed):
    alone = ScriptedActor(fetch=[*[Answer(DEAD)] * 4, Answer("data")])
    client, notices = client_of(alone)
    assert client.answer(client.ask("fetch", HERE)) == "data"
    assert len(notices) == 1
    assert timed.now == pytest.approx(1000.0 + 3 * RETRY_SECONDS)


def test_a_request_that_kills_each_worker_ends_the_run_after_several_restarts(timed):
    kills = ScriptedActor(fetch=[Answer(DEAD) for _ in range(5000)])
    client, _ = client_of(kills)
    with pytest.raises(ClusterError, match=r"the same request \(fetch of window 0 of epoch 0"):
        client.answer(client.ask("fetch", HERE))
    assert len(kills.calls["fetch"]) > MAX_RETRIES_BEFORE_ERROR
    assert RESTART_SECONDS < timed.now - 1000.0 < RESTART_SECONDS + 2 * RETRY_SECONDS


def test_a_client_waits_for_a_slow_worker_that_answers_polls(timed):
    answer = pending()
    signs = iter(range(3))

    def sign():
        if next(signs) == 2:
            answer.come("data")
        return 12

    reads = ScriptedActor(fetch=[answer], process_id=sign)
    client, notices = client_of(reads, ScriptedActor())
    assert client.answer(client.ask("fetch", HERE)) == "data"
    assert timed.waits == [WORKER_TIMEOUT_SECONDS] * 3
    assert (notices, timed.killed, timed.restarted) == ([], [], [])


def test_a_hung_worker_is_restarted_and_its_request_goes_to_another(timed):
    hangs = ScriptedActor()
    other = ScriptedActor(fetch=[Answer("data")])
    client, notices = client_of(hangs, other)
    taken = timed.get
    timeouts = []

    def get(answer, timeout=None):
        timeouts.append(timeout)
        return taken(answer, timeout)

    timed.get = get
    assert client.answer(client.ask("fetch", HERE)) == "data"
    assert (timed.restarted, timed.killed) == ([hangs], [])
    assert timeouts[0] == HEARTBEAT_SECONDS
    (notice,) = notices
    assert notice.startswith("data worker 0 has not answered for 60 s and hangs; sending its")


def test_the_run_ends_if_no_worker_answers_within_the_limit(timed):
    reads = ScriptedActor(process_id=lambda: 12)
    client, _ = client_of(reads)
    client.give_up_seconds = 150.0
    with pytest.raises(ClusterError, match=r"No data worker has answered for 150 s \(fetch of"):
        client.answer(client.ask("fetch", HERE))
    assert timed.waits == [60.0, 60.0, 30.0]


@pytest.mark.parametrize("early_seconds", [0.0, 0.5 * AGENT_SECONDS, 60.0])
def test_the_timeout_of_an_early_layout_request_begins_when_it_is_needed(timed, early_seconds):
    """The agent forwards the answer, and may itself be waiting for the data worker."""
    through_agent = pending()
    agent = ScriptedActor(layout=[Answer(through_agent)])
    client, notices = client_of(ScriptedActor(layout=[Answer("asked directly")]))
    client.sharing = NodeSharing(agent, "attempt")
    request = client.ask_for_layout(*HERE)
    timed.now += early_seconds
    assert client.answer(request) == "asked directly"
    assert timed.waits == [AGENT_SECONDS]
    assert notices == []  # the agent has answered, so the client keeps it
    assert client.sharing


def test_a_file_that_an_early_request_found_damaged_is_read_again(timed):
    reads = ScriptedActor(fetch=[raised(DAMAGED), Answer("data")])
    client, notices = client_of(reads)
    assert client.answer(client.ask("fetch", HERE)) == "data"
    assert notices == []


@pytest.mark.parametrize("error", [DAMAGED, ValueError("another")], ids=["file", "other"])
def test_an_error_that_a_worker_raises_twice_is_raised_unchanged(timed, error):
    """The client repeats the request once before it raises the error."""
    reads = ScriptedActor(fetch=[raised(error), raised(error)])
    client, _ = client_of(reads)
    with pytest.raises(type(error)) as told:
        client.answer(client.ask("fetch", HERE))
    assert told.value is error
    assert len(reads.calls["fetch"]) == 2


class Agent:
    """Agent of a node, which returns the reference of a data worker's answer."""

    def __init__(self, worker):
        self.layout = SimpleNamespace(
            remote=lambda _worker, _attempt, *window: Answer(worker.layout.remote(*window))
        )


@pytest.mark.parametrize("error", [DAMAGED, ValueError("another")], ids=["file", "other"])
def test_a_rank_repeats_a_layout_request_that_failed_for_its_node(timed, error):
    reads = ScriptedActor(layout=[raised(error), Answer("layout"), raised(error), raised(DAMAGED)])
    client, notices = client_of(reads)
    client.sharing = NodeSharing(Agent(reads), "attempt")
    assert client.answer(client.ask_for_layout(0, 3)) == "layout"
    with pytest.raises(DatasetFileError):  # requested again when the layout was needed
        client.answer(client.ask_for_layout(0, 4))
    assert reads.calls["layout"] == [(0, 3), (0, 3), (0, 4), (0, 4)]
    assert client.sharing is not None
    assert notices == []


@pytest.fixture
def reader(settings):
    store, manifest = open_dataset(settings.data)
    return WindowReader(store, manifest, settings)


def stream_of(client, rank=0, ranks=1, steps_ahead=4, bytes_ahead=100_000_000):
    return WorkerStreams(
        client, rank=rank, ranks=ranks, slots=5, steps_ahead=steps_ahead, bytes_ahead=bytes_ahead
    )


def reading(reader):
    """Return a worker that reads as `cluster.data.workers.DataWorker` does."""
    return ScriptedActor(
        layout=lambda epoch, window: reader.layout(epoch, window),
        fetch=lambda span: reader.fetch(span.epoch, span.window, span.start, span.stop),
    )


@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (0, 2), (1, 2), (0, 5), (3, 5)])
@pytest.mark.parametrize("bytes_ahead", [1, 100_000_000], ids=["little", "much"])
def test_every_rank_reads_its_share_of_the_stream(timed, reader, rank, ranks, bytes_ahead):
    cursor, count = Cursor(0, 1, 0), 60
    workers = [reading(reader), reading(reader)]
    client, _ = client_of(*workers)
    stream = stream_of(client, rank, ranks, bytes_ahead=bytes_ahead).open(cursor)
    expected = local_rank_steps(reader, cursor, rank, ranks, 5)
    for ours, theirs in islice(zip(stream, expected, strict=False), count):
        assert (ours.slots, ours.units) == (theirs.slots, theirs.units)
        assert (ours.cursor, ours.next_cursor) == (theirs.cursor, theirs.next_cursor)
        for mine, reference in zip(ours.micro_batches, theirs.micro_batches, strict=True):
            assert np.array_equal(mine.pair_ids, reference.pair_ids)
    assert all(worker.calls["fetch"] for worker in workers)


@pytest.mark.parametrize("steps_ahead", [1, 4])
def test_the_number_of_steps_requested_ahead_is_limited(timed, reader, steps_ahead):
    worker = reading(reader)
    client, _ = client_of(worker)
    stream = stream_of(client, ranks=5, steps_ahead=steps_ahead).open(Cursor())
    next(stream)
    assert len(worker.calls["fetch"]) == steps_ahead + 1
    next(stream)
    assert len(worker.calls["fetch"]) == steps_ahead + 2


def test_each_window_s_layout_is_requested_once(timed, reader):
    worker = reading(reader)
    client, _ = client_of(worker)
    stream = stream_of(client).open(Cursor())
    list(islice(stream, 60))
    layouts = worker.calls["layout"]
    assert len(set(layouts)) == len(layouts) > 4
