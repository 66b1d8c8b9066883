"""The server's answers: translations, limits, health, metrics, its description, who gets in.

It translates in this process; `test_serve.py` has Ray.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import SimpleNamespace

import ctranslate2
import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.serving.running import HANG_SECONDS, RunningServer

from cluster.serving import dispatcher
from cluster.serving.dispatcher import LATELY_SECONDS, MOST_LOSSES, Dispatcher
from cluster.serving.errors import ReplicaLostError
from cluster.serving.facts import RunFacts
from cluster.serving.replica import Batch
from cluster.serving.settings import Batching, Limits, ReplicaSettings
from cluster.serving.translating import load, translated
from cluster.serving.waiting import Search
from data_pipeline.process_pool import cores
from trainer.inference.engine_names import Engine
from trainer.inference.translator import Translator
from transloom import ServedTranslator, TransloomError

SENTENCES = ["je suis étudiant", "elle est là", "il détestait la salade", "nous sommes ici"]


@pytest.fixture(scope="module")
def run(run_with):
    return run_with(40)


@pytest.fixture(scope="module")
def server(run):
    with RunningServer(run) as server:
        yield server


@pytest.fixture
def samples(server):
    """The numbers of the server: by name and labels."""

    def read():
        text = server.get("/metrics").body.decode()
        families = text_string_to_metric_families(text)  # refuses what is no OpenMetrics
        return {
            (one.name, *sorted(one.labels.values())): one.value
            for family in families
            for one in family.samples
        }

    return read


def problem(answer):
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.status, answer.json["kind"]


def test_translations_are_those_of_the_command(server, run):
    translator = Translator.load(run)
    prefixes = ["she", "", "he", ""]
    for more, expected in (
        ({}, translator.translate_n_best(SENTENCES, n_best=1)),
        ({"n_best": 3}, translator.translate_n_best(SENTENCES, n_best=3)),
        ({"prefixes": prefixes}, translator.translate_n_best(SENTENCES, None, prefixes, 1)),
    ):
        answer = server.translate({"sentences": SENTENCES, **more})
        assert answer.status == 200
        assert (answer.json["run"], answer.json["checkpoints"]) == ("phrases", ["step-00000040"])
        found = answer.json["translations"]
        assert [[one["text"] for one in of] for of in found] == [
            [one.text for one in of] for of in expected
        ]
        for ours, theirs in zip(found, expected, strict=True):
            assert [one["score"] for one in ours] == pytest.approx([one.score for one in theirs])


def test_ctranslate2_translates_batches_too(run):
    """What it finds is held to ours by tests of its own."""
    batch = Batch(Search(None, 2, False, True), tuple(SENTENCES), ("",) * len(SENTENCES))
    of_torch, of_ctranslate2 = (
        translated(load(settings, "40"), batch, settings)
        for settings in (ReplicaSettings(run), ReplicaSettings(run, engine=Engine.CTRANSLATE2))
    )
    for ours, theirs in zip(of_torch, of_ctranslate2, strict=True):
        assert [(text, pairs) for text, _, pairs in theirs.translations] == [
            (text, pairs) for text, _, pairs in ours.translations
        ]


def test_ctranslate2_is_loaded_with_the_checkpoint_and_has_the_cores_of_a_replica(run, monkeypatch):
    made, translator = [], ctranslate2.Translator

    def note(*arguments, **options):
        made.append((options["inter_threads"], options["intra_threads"]))
        return translator(*arguments, **options)

    monkeypatch.setattr(ctranslate2, "Translator", note)
    settings = ReplicaSettings(run, engine=Engine.CTRANSLATE2, cpus=cores() + 1)
    batch = Batch(Search(None, 1, False, False), tuple(SENTENCES), ("",) * len(SENTENCES))
    translator_of_run = load(settings, "40")
    assert made == [(1, settings.cpus)]  # before the first batch comes
    assert len(translated(translator_of_run, batch, settings)) == len(SENTENCES)
    assert len(made) == 1


def test_alignments_are_pairs_of_words(server, run):
    translator = Translator.load(run)
    best = [of[0] for of in translator.translate_n_best(SENTENCES, n_best=1)]
    expected = translator.align_words(SENTENCES, best)
    found = server.translate({"sentences": SENTENCES, "alignments": True}).json["translations"]
    assert [[tuple(pair) for pair in of[0]["alignment"]] for of in found] == list(
        map(list, expected)
    )


def test_a_client_asks_by_the_name_of_a_run(server):
    client = ServedTranslator(server.address, "phrases")
    assert client.translate(SENTENCES) == ServedTranslator(server.address).translate(SENTENCES)
    assert [len(of) for of in client.translate_n_best(SENTENCES, 2)] == [2] * 4
    with pytest.raises(TransloomError, match="no run 'other' is served, but phrases"):
        ServedTranslator(server.address, "other").translate(SENTENCES)


REFUSED = [
    ({"sentences": []}, 400, "not_understood"),
    ({"sentences": "one"}, 400, "not_understood"),
    ({"sentences": ["one"], "beam": 3}, 400, "not_understood"),
    ({"sentences": ["one"], "n_best": 0}, 400, "not_understood"),
    ({"sentences": ["one"], "n_best": 17}, 400, "not_allowed"),
    ({"sentences": ["one"], "prefixes": ["a", "b"]}, 400, "not_understood"),
    ({"sentences": ["one"], "prefixes": ["of very many words " * 20]}, 400, "prefix"),
    ({"sentences": ["one"], "tag": "<2xx>"}, 400, "tag"),
    ({"sentences": ["one"] * 257}, 413, "too_many_sentences"),
    ({"sentences": ["one", "word " * 1000]}, 413, "too_long"),
    ({"sentences": ["x" * 1_000_000]}, 413, "too_large"),
    (b'{"sentences": ["one"]', 400, "not_understood"),
    (b'{"sentences": ["\\ud800"]}', 400, "not_understood"),
    (b'{"sentences": ["\xff"]}', 400, "not_understood"),
    (b"[" * 10_000, 400, "not_understood"),
]


@pytest.mark.parametrize(("values", "status", "kind"), REFUSED)
def test_what_cannot_be_done_is_said(server, values, status, kind):
    answer = server.translate(values)
    assert problem(answer) == (status, kind)
    if kind in ("too_long", "prefix"):
        assert answer.json["sentence"] == len(values["sentences"]) - 1


def test_other_paths_methods_and_types_are_refused_as_json(server):
    assert problem(server.get("/nothing")) == (404, "not_found")
    assert problem(server.get("/static/../page.js")) == (404, "not_found")
    assert problem(server.get("/translate")) == (405, "not_allowed")
    assert problem(server.translate({"sentences": ["one"]}, "/runs/other/translate")) == (
        404,
        "not_found",
    )
    as_text = server.translate({"sentences": ["one"]}, **{"Content-Type": "text/plain"})
    assert problem(as_text) == (415, "not_understood")


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


def test_its_health_and_numbers_are_told(server, samples):
    assert server.get("/healthz").body == b"ok\n"
    ready = server.get("/readyz")
    assert (ready.status, ready.json["ready"]) == (200, True)
    (now,) = ready.json["runs"]
    assert (now["checkpoints"], now["damaged"]) == (["step-00000040"], [])
    before = samples()
    server.translate({"sentences": SENTENCES})
    server.translate({"sentences": []})
    after = samples()
    assert after["transloom_serve_checkpoint_step", "phrases"] == 40
    for name, more in {
        ("transloom_serve_requests_total", "200", "phrases"): 1,
        ("transloom_serve_requests_total", "400", "phrases"): 1,
        ("transloom_serve_sentences_total", "phrases"): 4,
        ("transloom_serve_request_seconds_count", "phrases"): 1,
        ("transloom_serve_batch_sentences_sum", "phrases"): 4,
    }.items():
        assert after[name] - before[name] == more, name
    content_type = server.get("/metrics").headers["Content-Type"]
    assert content_type.startswith("application/openmetrics-text")


def test_the_description_is_openapi_and_says_what_is_sent(server):
    api = server.get("/openapi.json").json
    OpenAPI.model_validate(api)
    served = {resource.canonical for resource in server._server.app.router.resources()}
    assert set(api["paths"]) == served - {"/", "/docs", "/openapi.json", "/static/{name}"}
    for name, schema in api["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name
    for path, model, values in (
        ("/readyz", "Standing", server.get("/readyz").json),
        (
            "/translate",
            "TranslateAnswer",
            server.translate({"sentences": SENTENCES, "alignments": True}).json,
        ),
        ("/translate", "Problem", server.translate({"sentences": []}).json),
    ):
        whole = {"$ref": f"#/components/schemas/{model}", "components": api["components"]}
        Draft202012Validator(whole).validate(values)
        assert path in api["paths"]
    example = api["paths"]["/translate"]["post"]["requestBody"]["content"]["application/json"]
    assert server.translate(example["example"]).status == 200


def test_pages_need_nothing_from_elsewhere(server):
    for path in ("/", "/docs", "/static/page.js", "/static/style.css"):
        answer = server.get(path)
        assert answer.status == 200
        assert b"http" not in answer.body.replace(b"<html", b"")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert b"<script" not in server.get("/docs").body


def test_without_a_token_pages_of_other_sites_get_nothing(server):
    asked = {"sentences": ["one"]}
    assert server.get("/runs", Host="evil.example").status == 421
    assert problem(server.translate(asked, Origin="http://evil.example")) == (403, "not_allowed")
    assert server.translate(asked, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert server.translate(asked, Origin=server.address).status == 200


def test_with_a_token_only_who_has_it_gets_in(run):
    token = "a token of more than sixteen letters".replace(" ", "-")
    with RunningServer(run, token=token) as server:
        asked = {"sentences": SENTENCES}
        for path in ("/", "/runs", "/metrics", "/docs", "/static/page.js"):
            assert problem(server.get(path)) == (401, "not_allowed")
        assert server.translate(asked).status == 401
        assert server.translate(asked, Authorization="Bearer wrong").status == 401
        assert server.translate(asked, f"/translate?token={token}").status == 401
        assert server.get("/healthz").status == 200
        assert server.get("/readyz").status == 200
        with pytest.raises(TransloomError, match="a token is needed"):
            ServedTranslator(server.address).translate(SENTENCES)
        assert len(ServedTranslator(server.address, token=token).translate(SENTENCES)) == 4
        entered = server.get(f"/docs?token={token}", Host="translate.example")
        assert (entered.status, entered.headers["Location"]) == (303, "/docs")
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        own = {"Cookie": cookie.split(";")[0]}
        assert server.get("/docs", **own).status == 200
        assert server.translate(asked, **own, Origin=server.address).status == 200
        assert server.translate(asked, **own, Origin="http://evil.example").status == 403


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
