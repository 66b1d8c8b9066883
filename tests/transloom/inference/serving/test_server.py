"""The server's responses: translations, limits, health, metrics, OpenAPI, and authentication.

The server translates in this process; `test_serve.py` uses replica processes.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import ctranslate2
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from support.connections import answer_to, connect, half_requests, received
from support.dashboard.running import HANG_SECONDS
from support.serving.running import RunningServer, problem

from foundation.process_pool import cores
from transloom import ServedTranslator, TransloomError
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine
from transloom.inference.serving.batches import Batch, RequestedSearch
from transloom.inference.serving.replica_process import load, translate_batch
from transloom.inference.serving.settings import ReplicaSettings
from transloom.inference.translator import Translator
from transloom.web.connections import MAX_WAITING

SENTENCES = ["je suis étudiant", "elle est là", "il détestait la salade", "nous sommes ici"]
CTRANSLATE2 = DecodingOptions(engine=Engine.CTRANSLATE2)


def batch_of(search):
    return Batch(search=search, texts=SENTENCES, prefixes=[""] * len(SENTENCES))


def test_the_server_translates_like_the_translator(server, run):
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


def test_a_replica_applies_its_decoding_options_and_the_n_best_of_the_request(run):
    settings = ReplicaSettings(run, decoding=DecodingOptions(beam_size=2, length_penalty=1.5))
    translator, reference = load(settings, "40"), Translator.load(run, 40)
    usual = translator.decoding
    for n_best, width in ((1, 2), (3, 3)):
        search = RequestedSearch(None, n_best, False, False)
        found = translate_batch(translator, batch_of(search), settings)
        reference.decoding = usual.model_copy(update={"beam_size": width, "length_penalty": 1.5})
        expected = reference.translate_n_best(SENTENCES, n_best=n_best)
        assert [[(one.text, one.score) for one in of_one] for of_one in found] == [
            [(one.text, one.score) for one in of_one] for of_one in expected
        ]
        assert translator.decoding == usual


def test_a_replica_translates_the_same_with_ctranslate2(run):
    """Both engines give the same texts and alignments."""
    batch = batch_of(RequestedSearch(None, 2, False, True))
    of_torch, of_ctranslate2 = (
        translate_batch(load(settings, "40"), batch, settings)
        for settings in (ReplicaSettings(run), ReplicaSettings(run, decoding=CTRANSLATE2))
    )
    for ours, theirs in zip(of_torch, of_ctranslate2, strict=True):
        assert [(one.text, one.alignment) for one in theirs] == [
            (one.text, one.alignment) for one in ours
        ]


def test_a_replica_loads_ctranslate2_once_with_as_many_threads_as_cores(run, monkeypatch):
    made, translator = [], ctranslate2.Translator

    def note(*arguments, **options):
        made.append((options["inter_threads"], options["intra_threads"]))
        return translator(*arguments, **options)

    monkeypatch.setattr(ctranslate2, "Translator", note)
    settings = ReplicaSettings(run, decoding=CTRANSLATE2, cpus=cores() + 1)
    batch = batch_of(RequestedSearch(None, 1, False, False))
    translator_of_run = load(settings, "40")
    assert made == [(1, settings.cpus)]  # loaded before the first batch
    assert len(translate_batch(translator_of_run, batch, settings)) == len(SENTENCES)
    assert len(made) == 1


def test_the_server_returns_alignments_as_pairs_of_words(server, run):
    translator = Translator.load(run)
    best = [of[0] for of in translator.translate_n_best(SENTENCES, n_best=1)]
    expected = translator.align_words(SENTENCES, best)
    found = server.translate({"sentences": SENTENCES, "alignments": True}).json["translations"]
    assert [[tuple(pair) for pair in of[0]["alignment"]] for of in found] == list(
        map(list, expected)
    )


def test_a_client_selects_a_run_by_name(server):
    client = ServedTranslator(server.address, "phrases")
    assert client.translate(SENTENCES) == ServedTranslator(server.address).translate(SENTENCES)
    assert [len(of) for of in client.translate_n_best(SENTENCES, 2)] == [2] * 4
    with pytest.raises(TransloomError, match="no run 'other' is served: use phrases"):
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
def test_invalid_and_too_large_requests_are_refused_with_a_reason(server, values, status, kind):
    answer = server.translate(values)
    assert problem(answer) == (status, kind)
    if kind in ("too_long", "prefix"):
        assert answer.json["sentence"] == len(values["sentences"]) - 1


def test_unknown_paths_methods_and_types_are_refused_as_json(server):
    assert problem(server.get("/nothing")) == (404, "not_found")
    assert problem(server.get("/static/../page.js")) == (404, "not_found")
    assert problem(server.get("/translate")) == (405, "not_allowed")
    assert problem(server.translate({"sentences": ["one"]}, "/runs/other/translate")) == (
        404,
        "not_found",
    )
    as_text = server.translate({"sentences": ["one"]}, **{"Content-Type": "text/plain"})
    assert problem(as_text) == (415, "not_understood")


def test_health_and_metrics_are_reported(server, samples):
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


def test_the_openapi_description_is_valid_and_matches_the_responses(server):
    api = server.get("/openapi.json").json
    validate(api)
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


def test_pages_load_no_resources_of_other_servers(server):
    for path in ("/", "/docs", "/static/page.js", "/static/style.css"):
        answer = server.get(path)
        assert answer.status == 200
        assert b"http" not in answer.body.replace(b"<html", b"")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert b"<script" not in server.get("/docs").body


def test_requests_of_other_sites_are_refused(server):
    asked = {"sentences": ["one"]}
    assert server.get("/runs", Host="evil.example").status == 421
    assert problem(server.translate(asked, Origin="http://evil.example")) == (403, "not_allowed")
    assert server.translate(asked, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert server.translate(asked, Origin=server.address).status == 200


def test_a_server_with_a_token_refuses_requests_without_the_token(run):
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


def test_invalid_request_bodies_are_refused_with_few_log_lines(run, caplog):
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with RunningServer(run) as server:
        for _ in range(5):
            for body in (
                b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
                b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            ):
                answer = answer_to(server.port, head + b"Connection: close\r\n" + body)
                assert answer.split(b" ")[1] == b"400"
            with connect(server.port) as leaves:
                leaves.sendall(head + b"Content-Length: 50\r\n\r\nhello")
        assert server.get("/healthz").status == 200
    assert len(caplog.records) <= 2
    assert {record.name for record in caplog.records} <= {"transloom.web.connections"}


def test_incomplete_requests_do_not_end_a_request_in_translation(run):
    is_asked, goes_on = Event(), Event()

    def hold(batch):
        is_asked.set()
        assert goes_on.wait(HANG_SECONDS)

    with RunningServer(run, before=hold) as server, ThreadPoolExecutor(1) as client:
        asked = client.submit(server.translate, {"sentences": SENTENCES})
        assert is_asked.wait(HANG_SECONDS)
        with half_requests(server.port, MAX_WAITING + 5) as held:
            assert [received(connection) for connection in held[:5]] == [b""] * 5
            goes_on.set()
            assert asked.result().status == 200
            assert server.get("/readyz").status == 200


def test_incomplete_requests_do_not_block_clients_with_a_token(run):
    token = "a-token-of-more-than-sixteen-letters"
    bearer = f"Authorization: Bearer {token}"
    ask = f"GET /runs HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n".encode()
    with RunningServer(run, token=token) as server, connect(server.port) as owner:
        owner.sendall(ask)
        assert b" 200 " in received(owner)
        with half_requests(server.port, 2 * MAX_WAITING) as held:
            for oldest in held[:MAX_WAITING]:
                assert received(oldest) == b""
            owner.sendall(ask)
            assert b" 200 " in received(owner)
            assert len(ServedTranslator(server.address, token=token).translate(SENTENCES)) == 4
