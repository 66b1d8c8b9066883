"""Concurrent requests: shared batches, lost replicas, limits, timeouts, and the server's stop.

The server translates in this process; `test_serve.py` uses replica processes.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, asynccontextmanager

import pytest
from support.cluster.processes import wait_until
from support.connections import connect, received
from support.gate import Gate
from support.proxy_server import proxy_of_environment
from support.serving.running import HANG_SECONDS, RunningServer, problem

from cluster.errors import ClusterError
from transloom import ServedTranslator, TransloomError
from transloom.inference.serving.dispatcher import MAX_LOSSES, Dispatcher
from transloom.inference.serving.facts import ServedRunFacts, facts_of
from transloom.inference.serving.metrics import ServingMetrics
from transloom.inference.serving.replica import ReplicaLostError
from transloom.inference.serving.settings import (
    Batching,
    Limits,
    ReplicaSettings,
    ServingSettings,
)

# Between the timeout of requests (60 s) and the end of a server that does not wait for them (2 s).
SLOW_CLIENT_SECONDS = 20.0
SENTENCES = ["je suis étudiant", "elle est là", "il détestait la salade", "nous sommes ici"]


def test_sentences_of_several_requests_share_a_batch(server, monkeypatch):
    """The first batch is paused until the other requests have arrived."""
    gate = Gate()
    monkeypatch.setattr(server, "before", gate)
    server.batches[:] = []
    with ThreadPoolExecutor(5) as pool, gate:
        first = pool.submit(server.translate, {"sentences": ["bonjour"]})
        gate.wait_until_reached()
        others = [pool.submit(server.translate, {"sentences": [one]}) for one in SENTENCES]
        wait_until(lambda: server.get("/readyz").json["runs"][0]["waiting_sentences"] == 4)
        gate.open()
        assert {one.result().status for one in (first, *others)} == {200}
    assert [len(batch.texts) for batch in server.batches] == [1, 4]


def test_the_client_bypasses_proxies_for_this_machine_and_names_them_in_errors(server):
    with proxy_of_environment() as proxy:
        assert len(ServedTranslator(server.address).translate(SENTENCES)) == len(SENTENCES)
        assert proxy.requests == []
        elsewhere = ServedTranslator("http://server.example:8644", patience_seconds=0.0)
        with pytest.raises(
            TransloomError, match=f"proxy {proxy.netloc} of http_proxy.*no_proxy"
        ) as error:
            elsewhere.translate(SENTENCES)
    assert "secret" not in str(error.value)


def test_sentences_of_a_lost_replica_are_translated_by_another(server, samples, monkeypatch):
    losses = iter(range(MAX_LOSSES - 1))

    def lose(batch):
        if next(losses, None) is not None:
            raise ReplicaLostError("killed")

    before = samples()["transloom_serve_lost_batches_total", "phrases"]
    monkeypatch.setattr(server, "before", lose)
    assert server.translate({"sentences": SENTENCES}).status == 200
    lost = samples()["transloom_serve_lost_batches_total", "phrases"] - before
    assert lost == MAX_LOSSES - 1


def test_a_replica_lost_during_a_batch_is_replaced_and_the_batch_repeated(run):
    gate = Gate()
    with RunningServer(run, before=gate) as server, ThreadPoolExecutor(1) as pool, gate:
        asked = pool.submit(server.translate, {"sentences": SENTENCES})
        gate.wait_until_reached()
        server.before = lambda batch: None
        server.lose_replica()
        assert asked.result(HANG_SECONDS).status == 200


def test_the_start_fails_if_no_replica_process_can_be_created(run):
    @asynccontextmanager
    async def replica():
        raise OSError("no memory")
        yield

    async def start():
        facts = facts_of(ReplicaSettings(run))
        dispatcher = Dispatcher("phrases", facts, replica, ServingSettings({}), ServingMetrics())
        try:
            await asyncio.gather(*dispatcher.start())
        finally:
            await dispatcher.close()

    with pytest.raises(ClusterError, match="No replica of phrases started: no memory"):
        asyncio.run(start())


def test_a_sentence_that_kills_replicas_fails_alone(server, monkeypatch):
    def lose(batch):
        if "poison" in batch.texts:
            raise ReplicaLostError("killed")

    monkeypatch.setattr(server, "before", lose)
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(server.translate, {"sentences": ["poison"]})
        good = pool.submit(server.translate, {"sentences": SENTENCES})
        assert good.result().status == 200
        assert problem(bad.result()) == (503, "failed")
        assert bad.result().headers["Retry-After"] == "5"


def test_requests_beyond_the_limit_get_status_429_and_retry_after(run):
    gate = Gate()
    limits = Limits(waiting_sentences=3)
    with RunningServer(run, limits, before=gate) as server, ThreadPoolExecutor(8) as pool, gate:
        first = pool.submit(server.translate, {"sentences": ["un"]})
        gate.wait_until_reached()
        others = [pool.submit(server.translate, {"sentences": ["deux"]}) for _ in range(7)]
        done = as_completed(others, HANG_SECONDS)
        refused = [next(done).result() for _ in range(4)]
        assert {problem(one) for one in refused} == {(429, "queue_full")}
        assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
        gate.open()
        assert [one.result().status for one in (first, *done)] == [200] * 4


def test_a_request_that_times_out_frees_its_slot_in_the_queue(run):
    gate, limits = Gate(), Limits(waiting_sentences=1, timeout_seconds=0.5)
    with RunningServer(run, limits, before=gate) as server, ThreadPoolExecutor(1) as pool, gate:
        for _ in range(2):  # the first is in a batch, the second in the queue
            late = server.translate({"sentences": SENTENCES[:1]})
            assert problem(late) == (504, "timeout")
            assert int(late.headers["Retry-After"]) > 0
        assert server.get("/readyz").json["runs"][0]["waiting_sentences"] == 0
        later = pool.submit(ServedTranslator(server.address).translate, SENTENCES[:1])
        gate.open()
        assert len(later.result()) == 1


def test_sentences_count_as_waiting_while_their_tokens_are_counted(run, monkeypatch):
    gate, count = Gate(), ServedRunFacts.count_tokens

    def hold(*arguments):
        gate()
        return count(*arguments)

    monkeypatch.setattr(ServedRunFacts, "count_tokens", hold)
    limits = Limits(waiting_sentences=3)
    with RunningServer(run, limits) as server, ThreadPoolExecutor(5) as pool, gate:
        answers = [pool.submit(server.translate, {"sentences": ["un"]}) for _ in range(5)]
        done = as_completed(answers, HANG_SECONDS)
        assert [problem(next(done).result())[0] for _ in range(2)] == [429, 429]
        gate.open()
        assert [one.result().status for one in done] == [200] * 3


def test_an_internal_error_gives_status_500_and_is_counted(server, samples, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    name = ("transloom_serve_requests_total", "500", "phrases")
    before = samples().get(name, 0)
    with monkeypatch.context() as patch:
        patch.setattr(ServedRunFacts, "count_tokens", fail)
        assert problem(server.translate({"sentences": SENTENCES})) == (500, "failed")
    assert samples()[name] == before + 1
    assert server.translate({"sentences": SENTENCES}).status == 200


def test_a_request_succeeds_after_an_error_in_its_replica(server, monkeypatch):
    errors = iter([RuntimeError("a bug")])

    def fail(batch):
        for error in errors:
            raise error

    monkeypatch.setattr(server, "before", fail)
    assert server.translate({"sentences": SENTENCES}).status == 200


def test_a_stopping_server_answers_accepted_requests_and_refuses_others(run):
    gate = Gate()
    with RunningServer(run, before=gate) as server, ThreadPoolExecutor(1) as pool, gate:
        taken = pool.submit(server.translate, {"sentences": SENTENCES})
        gate.wait_until_reached()
        drained = server.drain()
        wait_until(lambda: server.get("/readyz").status != 200)
        late = server.translate({"sentences": SENTENCES})
        assert problem(late) == (503, "not_ready")
        assert "Retry-After" in late.headers
        assert server.get("/healthz").status == 200
        assert not drained.done()
        gate.open()
        assert taken.result().status == 200
        assert drained.result(HANG_SECONDS) == 0


@pytest.mark.parametrize("sent", [b"", b"{", b'{"sentences": ["un"'])
def test_incomplete_requests_do_not_delay_the_servers_stop(run, sent):
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with RunningServer(run) as server, ExitStack() as held:
        for _ in range(3):
            connection = held.enter_context(connect(server.port))
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n" + sent)
        assert server.get("/healthz").status == 200  # the connections are accepted
        assert server.drain().result(HANG_SECONDS) == 0
        began = time.monotonic()
    assert time.monotonic() - began < SLOW_CLIENT_SECONDS


def test_a_request_that_is_completed_during_the_stop_is_refused(run):
    gate = Gate()
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b'{"sentences": ["un"]}'
    with RunningServer(run, before=gate) as server, ThreadPoolExecutor(1) as pool, gate:
        accepted = pool.submit(server.translate, {"sentences": SENTENCES})
        gate.wait_until_reached()
        with connect(server.port) as late:
            late.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
            drained = server.drain()
            wait_until(lambda: server.get("/readyz").status != 200)
            late.sendall(body[5:])
            assert b" 503 " in received(late)
        gate.open()
        assert accepted.result().status == 200
        assert drained.result(HANG_SECONDS) == 0


def test_batches_have_at_most_the_configured_tokens(run):
    with RunningServer(run, batching=Batching(tokens=24)) as server:
        assert server.translate({"sentences": SENTENCES * 8}).status == 200
        assert sum(len(batch.texts) for batch in server.batches) == 32
        assert max(len(batch.texts) for batch in server.batches) <= 8


def test_a_client_raises_an_error_when_its_patience_ends(run):
    gate, limits = Gate(), Limits(waiting_sentences=1, timeout_seconds=0.2)
    with RunningServer(run, limits, before=gate) as server, gate:
        impatient = ServedTranslator(server.address, patience_seconds=0.0)
        with pytest.raises(TransloomError, match="not ready within"):
            impatient.translate(SENTENCES[:1])
    with pytest.raises(TransloomError, match="cannot be reached"):
        impatient.translate(SENTENCES[:1])
