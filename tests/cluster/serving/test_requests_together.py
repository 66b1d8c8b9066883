"""Requests that meet: shared batches, lost replicas, too much at once, too late, and the end.

The server translates in this process; `test_serve.py` has Ray.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import SimpleNamespace

import pytest
from support.serving.running import HANG_SECONDS, RunningServer, problem

from cluster.serving import dispatcher
from cluster.serving.dispatcher import LATELY_SECONDS, MOST_LOSSES, Dispatcher
from cluster.serving.errors import ReplicaLostError
from cluster.serving.facts import RunFacts
from cluster.serving.settings import Batching, Limits
from transloom import ServedTranslator, TransloomError

SENTENCES = ["je suis étudiant", "elle est là", "il détestait la salade", "nous sommes ici"]


def test_sentences_of_several_requests_share_a_batch(server):
    """The first batch is held until the others have arrived."""
    held, asked = threading.Event(), threading.Event()

    def hold(batch):
        asked.set()
        assert held.wait(HANG_SECONDS)

    server.before, server.batches[:] = hold, []
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(server.translate, {"sentences": ["bonjour"]})
        assert asked.wait(HANG_SECONDS)
        others = [pool.submit(server.translate, {"sentences": [one]}) for one in SENTENCES]
        while server.get("/readyz").json["runs"][0]["waiting_sentences"] < 4:
            pass
        held.set()
        assert {one.result().status for one in (first, *others)} == {200}
    server.before = lambda batch: None
    assert [len(batch.texts) for batch in server.batches] == [1, 4]


def test_a_sentence_whose_replica_is_lost_is_translated_by_another(server, samples):
    losses = iter(range(MOST_LOSSES - 1))

    def lose(batch):
        if next(losses, None) is not None:
            raise ReplicaLostError("killed")

    before = samples()["transloom_serve_lost_batches_total", "phrases"]
    server.before = lose
    assert server.translate({"sentences": SENTENCES}).status == 200
    lost = samples()["transloom_serve_lost_batches_total", "phrases"] - before
    server.before = lambda batch: None
    assert lost == MOST_LOSSES - 1


def test_a_sentence_that_kills_replicas_takes_no_others_with_it(server):
    def lose(batch):
        if "poison" in batch.texts:
            raise ReplicaLostError("killed")

    server.before = lose
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(server.translate, {"sentences": ["poison"]})
        good = pool.submit(server.translate, {"sentences": SENTENCES})
        assert good.result().status == 200
        assert problem(bad.result()) == (503, "failed")
        assert bad.result().headers["Retry-After"] == "5"
    server.before = lambda batch: None


def test_too_much_at_once_is_told_to_come_again(run):
    held, asked = threading.Event(), threading.Event()

    def hold(batch):
        asked.set()
        assert held.wait(HANG_SECONDS)

    limits = Limits(waiting_sentences=3)
    with RunningServer(run, limits, before=hold) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.translate, {"sentences": ["un"]})
        assert asked.wait(HANG_SECONDS)
        others = [pool.submit(server.translate, {"sentences": ["deux"]}) for _ in range(7)]
        done = as_completed(others, HANG_SECONDS)
        refused = [next(done).result() for _ in range(4)]
        assert {problem(one) for one in refused} == {(429, "queue_full")}
        assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
        held.set()
        assert [one.result().status for one in (first, *done)] == [200] * 4


def test_what_takes_too_long_is_told_so_and_takes_no_more_room(run):
    held = threading.Event()
    limits = Limits(waiting_sentences=1, timeout_seconds=0.5)
    with (
        RunningServer(run, limits, before=lambda batch: held.wait(HANG_SECONDS)) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        for _ in range(2):  # the first is at work, the second waits
            late = server.translate({"sentences": SENTENCES[:1]})
            assert problem(late) == (504, "timeout")
            assert int(late.headers["Retry-After"]) > 0
        assert server.get("/readyz").json["runs"][0]["waiting_sentences"] == 0
        later = pool.submit(ServedTranslator(server.address).translate, SENTENCES[:1])
        held.set()
        assert len(later.result()) == 1


def test_sentences_whose_tokens_are_counted_take_room_too(run, monkeypatch):
    held, count = threading.Event(), RunFacts.count_tokens

    def hold(*arguments):
        assert held.wait(HANG_SECONDS)
        return count(*arguments)

    monkeypatch.setattr(RunFacts, "count_tokens", hold)
    with RunningServer(run, Limits(waiting_sentences=3)) as server, ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(server.translate, {"sentences": ["un"]}) for _ in range(5)]
        done = as_completed(answers, HANG_SECONDS)
        assert [problem(next(done).result())[0] for _ in range(2)] == [429, 429]
        held.set()
        assert [one.result().status for one in done] == [200] * 3


def test_a_replica_with_a_long_batch_is_not_taken_for_lost(run, monkeypatch):
    held, asked = threading.Event(), threading.Event()

    def hold(batch):
        asked.set()
        assert held.wait(HANG_SECONDS)

    with RunningServer(run, before=hold) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.translate, {"sentences": SENTENCES})
        assert asked.wait(HANG_SECONDS)
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 10 * LATELY_SECONDS)
        monkeypatch.setattr(dispatcher, "time", later)
        assert server.get("/readyz").status == 200
        held.set()
        assert answer.result().status == 200


def test_an_error_of_the_servers_own_is_told_as_such(server, samples, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    name = ("transloom_serve_requests_total", "500", "phrases")
    before = samples().get(name, 0)
    with monkeypatch.context() as patch:
        patch.setattr(RunFacts, "count_tokens", fail)
        assert problem(server.translate({"sentences": SENTENCES})) == (500, "failed")
    assert samples()[name] == before + 1
    assert server.translate({"sentences": SENTENCES}).status == 200


def test_a_replica_that_cannot_tell_how_it_stands_still_gets_batches(run, monkeypatch):
    looks, heard = threading.Semaphore(0), Dispatcher._heard
    monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 0.01)

    def fail(*arguments):
        looks.release()
        raise RuntimeError("a bug")

    with RunningServer(run) as server:
        monkeypatch.setattr(Dispatcher, "_heard", fail)
        assert all(looks.acquire(timeout=HANG_SECONDS) for _ in range(2))
        monkeypatch.setattr(Dispatcher, "_heard", heard)
        assert server.translate({"sentences": SENTENCES}).status == 200


def test_a_server_that_is_stopped_answers_what_it_has_taken(run):
    held, asked = threading.Event(), threading.Event()

    def hold(batch):
        asked.set()
        assert held.wait(HANG_SECONDS)

    with RunningServer(run, before=hold) as server, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(server.translate, {"sentences": SENTENCES})
        assert asked.wait(HANG_SECONDS)
        drained = server.drain()
        while server.get("/readyz").status == 200:
            pass
        late = server.translate({"sentences": SENTENCES})
        assert problem(late) == (503, "not_ready")
        assert "Retry-After" in late.headers
        assert server.get("/healthz").status == 200
        assert not drained.done()
        held.set()
        assert taken.result().status == 200
        assert drained.result(HANG_SECONDS) == 0


def test_batches_keep_to_their_budget(run):
    with RunningServer(run, batching=Batching(tokens=24)) as server:
        assert server.translate({"sentences": SENTENCES * 8}).status == 200
        assert sum(len(batch.texts) for batch in server.batches) == 32
        assert max(len(batch.texts) for batch in server.batches) <= 8


def test_a_client_gives_up_when_its_patience_ends(run):
    with RunningServer(run, Limits(waiting_sentences=1, timeout_seconds=0.2)) as server:
        held = threading.Event()
        server.before = lambda batch: held.wait(HANG_SECONDS)
        impatient = ServedTranslator(server.address, patience_seconds=0.0)
        with pytest.raises(TransloomError, match="no translation within"):
            impatient.translate(SENTENCES[:1])
        held.set()
    with pytest.raises(TransloomError, match="cannot be reached"):
        impatient.translate(SENTENCES[:1])
