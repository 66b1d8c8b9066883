"""The dashboard over HTTP: responses, access, and followed runs. All tests share a server."""

import hashlib
import http.client
import json
import os
import re
import socket
import sys

import psutil
import pytest
from support.dashboard.running import HANG_SECONDS, RunningDashboard
from support.records.lines import train_line, validation_line
from support.records.long_records import long_record
from support.records.moments import write_moments
from support.records.run_folders import made_run, with_checkpoint, with_owner, with_status

from run_store.folder import RunFolder
from run_store.record.curve_file import CurveFile
from run_store.record.metrics_lines import Resumed
from run_store.record.node_usage import GpuUsage, NodeLine, Usage, append_usage
from run_store.record.vitals import Vitals
from transloom.observe.curves.curves import Curves
from transloom.observe.dashboard import page_subscribers
from transloom.observe.dashboard.api_models import (
    CurvesChanged,
    NodesResponse,
    RunResponse,
    RunsResponse,
    TimeLapseResponse,
)
from transloom.observe.dashboard.run_responses import frozen_responses
from transloom.observe.dashboard.runs_folder import run_id

HTML = "<img src=x onerror=alert(1)>"
LONG = 2_500
GPU = GpuUsage(index=3, utilization_percent=5, memory_used_bytes=1, memory_bytes=80)
NODE_LINES = [
    NodeLine.of(Usage(cpu_percent=at, memory_used_bytes=1, memory_bytes=2, gpus=gpus), at, 1, node)
    for at, node, gpus in ((10, HTML, []), (20, "gpu-7", []), (30, HTML, []), (30, "gpu-7", [GPU]))
]
# Replaces `transloom replay`: prints the requested steps; waits or fails for some first steps.
REPLAY = """
import json, os, sys
replay, run, option, steps, *options = sys.argv[1:]
assert (replay, option, options) == ("replay", "--steps", ["--look", "--json"]), sys.argv
first = int(steps.split(":")[0])
print(f"process {os.getpid()} trains {first} steps <b>again</b>", file=sys.stderr, flush=True)
if first == 7:
    sys.stdin.read()
if first == 8:
    sys.exit("there is no checkpoint before step 8")
if first == 9:
    print("[" * 100_000)
elif first == 10:
    for _ in range(2_000):
        print("x" * 10_000)
else:
    print("it \x1b[31mends", end="\\r", file=sys.stderr)
    print(json.dumps({"run": run, "from_step": first, "text": "</script>\\u2028"}))
    sys.exit(first == 11)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "runs"
    lines = [
        train_line(1),
        Resumed(step=1, from_step=0, quarantined=[HTML], promise=""),
        train_line(2),
    ]
    lines.append(validation_line(2, text=HTML))
    with_checkpoint(made_run(folder / "alpha", *lines), 2)
    (folder / "alpha" / "recipe.yaml").write_text("trainer:\n  max_steps: 20\n  seed: 1\n")
    with_status(folder / "alpha", vitals=Vitals(time=1.5))
    manifest = {"corpora": [{"name": "news", "read": 3, "kept": 2, "dropped": {HTML: 1}}]}
    (folder / "alpha" / "dataset").mkdir()
    (folder / "alpha" / "dataset" / "manifest.json").write_text(json.dumps(manifest))
    append_usage(folder / "alpha" / "nodes.jsonl", NODE_LINES)
    made_run(folder / HTML, train_line(1))
    long = RunFolder(made_run(folder / "long"))
    CurveFile(long.curves, long_record(long.metrics, LONG)).extend()
    outside = made_run(folder.parent / "outside", train_line(1))
    (folder / "linked").symlink_to(outside)
    for name, file in (("record", "metrics.jsonl"), ("recipe", "recipe.yaml")):
        run = made_run(folder / f"{name}-linked", train_line(1))
        (run / file).unlink()
        (run / file).symlink_to(outside / file)
    header = with_checkpoint(made_run(folder / "header-linked", train_line(1)), 1)
    target = header / "checkpoints" / "step-00000001" / "checkpoint.json"
    target.rename(folder.parent / "checkpoint.json")
    target.symlink_to(folder.parent / "checkpoint.json")
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "notes.txt").write_text("no run")
    os.mkdir(os.fsencode(folder) + b"/no-\xff-text")  # noqa: PTH102
    (folder / "no-\udcff-text" / "metrics.jsonl").touch()
    return folder


@pytest.fixture(scope="module")
def served(folder):
    command = (sys.executable, "-c", REPLAY)
    with RunningDashboard(folder, command) as running:
        yield running


def told_state(folder):
    """Return the modification time and size of every path in a folder."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))
    }


# --- responses


def test_the_runs_response_has_a_row_for_every_run(served, folder):
    answer = served.get("/api/runs")
    assert answer.status == 200
    table = RunsResponse.model_validate(answer.json)
    rows = {row.name: row for row in table.runs}
    assert {"alpha", HTML, "long"} <= rows.keys()
    assert rows["alpha"].id == "alpha"
    assert rows["alpha"].standing.step == 2
    assert rows["alpha"].standing.settings == {"trainer.max_steps": 20, "trainer.seed": 1}
    assert table.folder == str(folder)


def test_the_response_for_a_run_has_its_events_validations_and_status(served):
    answer = RunResponse.model_validate(served.get("/api/runs/alpha").json)
    assert answer.card.name == "alpha"
    assert [mark.event for mark in answer.events] == ["resumed"]
    assert HTML in answer.events[0].words
    assert [(row.step, row.scores["bleu"].value) for row in answer.validations] == [(2, 30.0)]
    assert [sample.source for sample in answer.samples] == [HTML]
    assert [(row.step, row.state) for row in answer.standing.checkpoints] == [(2, "complete")]
    assert any(command.startswith("transloom train ") for command in answer.commands)
    assert answer.standing.vitals == Vitals(time=1.5)
    assert answer.cleaning == {"news": {"read": 3, "kept": 2, "dropped": {HTML: 1}}}


def test_the_time_lapse_response_has_steps_grouped_by_sentence(served, folder):
    run = made_run(folder / "probed", train_line(1))
    write_moments(run / "time-lapse", {0: "the the", 1: HTML})
    write_moments(run / "time-lapse", {2: "il est"}, sentence=HTML)
    (run / "time-lapse" / "step-00000003.json").write_text("{}")
    found = TimeLapseResponse.model_validate(served.get("/api/runs/probed/time-lapse").json)
    said = {
        sentence: [(moment.step, moment.output) for moment in moments]
        for sentence, moments in found.sentences.items()
    }
    assert said == {"je suis": [(0, "the the"), (1, HTML)], HTML: [(2, "il est")]}
    (first, *_) = found.sentences["je suis"]
    assert (first.source, len(first.target)) == (["▁je", "▁suis", "</s>"], 2)
    assert first.weights == [[33, 33, 33]] * 2
    assert "step-00000003.json" in found.problems[0]
    empty = TimeLapseResponse.model_validate(served.get("/api/runs/alpha/time-lapse").json)
    assert (empty.sentences, empty.problems) == ({}, [])


def test_unreadable_files_of_a_run_are_listed_as_problems(served, folder):
    run = made_run(folder / "odd", train_line(1))
    for name, text in (("recipe.yaml", "\0"), ("nodes.jsonl", "x\n")):
        (run / name).write_text(text)
    (run / "log.txt").mkdir()
    (run / "checkpoints" / "step-00000001").mkdir()
    with_status(run)
    answer = served.get("/api/runs/odd")
    assert answer.status == 200
    problems = "\n".join(answer.json["standing"]["problems"])
    for name in ("recipe.yaml", "log.txt"):
        assert name in problems
    assert [row["state"] for row in answer.json["standing"]["checkpoints"]] == ["damaged"]
    assert "1 line" in served.get("/api/runs/odd/nodes").json["problem"]
    (run / "status.json").write_text("[1]")
    standing = served.get("/api/runs/odd").json["standing"]
    assert standing["state"] == "damaged"
    assert "status.json is damaged" in str(standing["problems"])


def test_curves_of_a_short_range_have_a_point_for_every_step(served):
    answer = served.get("/api/runs/long/curves?points=2000&from=401&to=420").json
    curves = Curves.model_validate(answer)
    assert curves.columns["step"] == list(range(401, 421))
    assert not curves.thinned
    assert curves.steps_recorded == LONG
    assert curves.bytes_read < 600_000 < 1_400_000 < curves.recorded_bytes


@pytest.mark.parametrize("query", ["points=x", "from=-1", "to=1e9", "points=" + "9" * 30, "from=٣"])
def test_an_invalid_number_in_a_curves_query_is_refused(served, query):
    answer = served.get(f"/api/runs/long/curves?{query.replace('٣', '%D9%A3')}")
    assert answer.status == 400
    assert "expected a number" in answer.json["problem"]


def test_the_run_response_has_all_validations_though_curves_are_thinned(served):
    found = served.get("/api/runs/long/curves?points=100").json
    assert found["thinned"]
    assert len(found["columns"]["step"]) == 100
    marks = RunResponse.model_validate(served.get("/api/runs/long").json)
    assert [row.step for row in marks.validations] == [
        step for step in range(100, LONG + 1, 100) if step % 250
    ]


def test_the_nodes_response_has_a_column_for_each_measure(served):
    answer = NodesResponse.model_validate(served.get("/api/runs/alpha/nodes").json)
    assert set(answer.nodes) == {HTML, "gpu-7"}
    assert answer.nodes[HTML].cpu_percent == [10.0, 30.0]
    assert answer.nodes["gpu-7"].time == [20.0, 30.0]
    (gpu,) = answer.nodes["gpu-7"].gpus
    assert (gpu.index, gpu.utilization_percent, gpu.memory_bytes) == (3, [None, 5.0], [None, 80])


def test_a_run_name_with_html_is_returned_as_json(served):
    name = run_id(HTML)
    assert name.startswith("~")
    answer = served.get(f"/api/runs/{name}")
    assert answer.json["name"] == HTML
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_unknown_path_is_reported_in_json(served):
    for path in ("/api/runs/none", "/api/runs/none/curves", "/api/runs/alpha/looks/1-2"):
        answer = served.get(path)
        assert answer.status == 404
        assert answer.json["problem"]


def test_a_report_contains_the_same_responses_as_the_server(served, folder):
    answers = frozen_responses([folder / "alpha", folder / "long"])
    for path in ("/api/runs/alpha", "/api/runs/alpha/nodes", "/api/runs/long/nodes"):
        assert answers[path] == served.get(path).json
    assert [row["id"] for row in answers["/api/runs"]["runs"]] == ["alpha", "long"]
    curves = answers["/api/runs/long/curves"]
    assert curves["columns"]["step"][-1] == LONG - 1  # the last step is a skipped step
    json.dumps(answers, allow_nan=False)


# --- access


def test_without_the_token_requests_are_refused(served):
    for path in ("/", "/api/runs", "/api/follow", "/static/page.js", "/none"):
        for cookie in (None, "transloom=1", served.cookie.split("=")[0] + "=x", served.cookie[:-1]):
            answer = served.request("GET", path, cookie=cookie)
            assert answer.status == 401
            assert "transloom dashboard" in answer.body.decode()
    for token in ("", "x", served.doors.token[:-1], served.doors.token + "x", "%00", "é"):
        answer = served.request("GET", "/?token=" + token.encode().hex(), cookie=None)
        assert answer.status == 401
        assert "Set-Cookie" not in answer.headers
    wrong = served.request("GET", f"/?token={served.doors.token}x")  # although the cookie is valid
    assert wrong.status == 401


def test_a_token_in_the_url_is_replaced_by_a_cookie_and_a_redirect(served):
    answer = served.request("GET", f"/api/runs?a=b&token={served.doors.token}", cookie=None)
    assert answer.status == 303
    assert answer.headers["Location"] == "/api/runs?a=b"
    attributes = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert served.doors.token not in str(answer.headers) + answer.body.decode()
    assert str(served.port) in attributes[0]  # a dashboard at another port has another cookie name


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "//evil.example//x"])
def test_the_redirect_without_the_token_stays_on_the_server(served, path):
    answer = served.request("GET", f"{path}?token={served.doors.token}", cookie=None)
    place = answer.headers.get("Location", "/")
    assert place.startswith("/")
    assert not place.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80"),
        *("", "127.0.0.1@evil.example", "[::1", "xn--localhost"),
    ],
)
def test_a_host_header_of_another_machine_is_refused(served, host):
    for path in ("/api/runs", f"/?token={served.doors.token}"):
        answer = served.get(path, Host=host)
        assert answer.status in (400, 421)
        assert "Set-Cookie" not in answer.headers


def test_host_headers_of_this_machine_are_accepted(served):
    for host in (f"127.0.0.1:{served.port}", "localhost:9000", "[::1]:80", "LOCALHOST"):
        assert served.get("/api/runs", Host=host).status == 200


def test_a_request_with_two_or_no_host_headers_is_refused(served):
    request = f"GET /api/runs HTTP/1.1\r\nCookie: {served.cookie}\r\nConnection: close\r\n"
    for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), HANG_SECONDS) as connection:
            connection.sendall((request + hosts + "\r\n").encode())
            status = connection.makefile("rb").readline().split()[1]
        assert status in (b"400", b"421")


@pytest.mark.parametrize("path", ["/", "/api/runs", "/none", "/api/runs/none", "/static/none"])
def test_every_response_forbids_external_resources(served, path):
    for answer in (served.get(path), served.request("GET", path, cookie=None)):
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert {"script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"} <= set(policy)
        assert not any("unsafe" in rule or "*" in rule or "http" in rule for rule in policy)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "transloom"
        assert not any(name.startswith("Access-Control") for name in answer.headers)


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/server.py"),
        *("/static//etc/passwd", "/static/....//server.py", "/static/..\\server.py"),
        *("/api/runs/..", "/api/runs/%2e%2e", "/api/runs/..%2f..%2fetc", "/api/runs/linked"),
        *("/api/runs/alpha%2f..%2f..%2foutside", "/api/runs/%2fetc", "/api/runs/notes.txt"),
        *("/api/runs/alpha/../../outside/curves", "/api/runs/record-linked/curves"),
    ],
)
def test_paths_outside_the_page_and_the_runs_are_refused(served, path):
    answer = served.get(path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


def test_symbolic_links_are_reported_and_not_followed(served):
    table = served.get("/api/runs").json
    names = {row["name"] for row in table["runs"]}
    linked = {"linked", "record-linked", "recipe-linked", "header-linked", "itself"}
    assert not names & linked
    for name in linked:
        assert any(name in problem and "not followed" in problem for problem in table["problems"])
    assert any("no-\\xff-text" in problem for problem in table["problems"])


def test_requests_write_nothing_to_the_folder_of_runs(served, folder):
    before = told_state(folder)
    for path in ("/", "/api/runs", "/api/runs/alpha", "/api/runs/long/curves", "/api/runs/nodes"):
        served.get(path)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        headers = {"Origin": served.address}
        assert served.request(method, "/api/runs/alpha", headers).status == 405
    assert told_state(folder) == before


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1.evil.example", "file://"]
)
def test_a_post_without_the_dashboards_origin_starts_no_replay(served, origin):
    headers = {} if origin is None else {"Origin": origin}
    answer = served.request("POST", "/api/runs/alpha/looks", headers, b'{"from":1,"to":2}')
    assert answer.status == 403
    assert served.get("/api/runs/alpha/looks/1-2").status == 404


def test_cross_site_requests_are_refused(served):
    for mode in ("no-cors", "cors", "websocket"):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        assert served.request("GET", "/api/runs", headers).status == 403
    headers = {"Origin": served.address}
    assert served.request("POST", "/api/runs/alpha/looks", headers, b"{}", None).status == 401


# --- replays with --look


def wait_for_look(served, events, first, last):
    while True:
        _, told = events.next("looks")
        if told["state"] != "running" and (told["from"], told["to"]) == (first, last):
            return served.get(f"/api/runs/alpha/looks/{first}-{last}").json


def test_a_replay_runs_in_a_process_and_its_result_is_kept(served, folder):
    with served.follow() as events:
        answer = served.post("/api/runs/alpha/looks", {"from": 1, "to": 2})
        assert answer.status == 202
        found = wait_for_look(served, events, 1, 2)
    assert found["state"] == "done"
    assert found["look"]["run"] == str(folder / "alpha")
    assert found["look"]["text"] == "</script>\u2028"
    again = served.post("/api/runs/alpha/looks", {"from": 1, "to": 2})
    assert again.json == found  # the result is kept


def test_a_replay_that_finds_a_difference_has_the_state_done(served):
    """The replay's exit code is 1; the output contains the difference."""
    with served.follow() as events:
        served.post("/api/runs/alpha/looks", {"from": 11, "to": 11})
        found = wait_for_look(served, events, 11, 11)
    assert (found["state"], found["look"]["from_step"]) == ("done", 11)


@pytest.mark.parametrize(
    ("first", "why"),
    [(8, "no checkpoint before step 8"), (9, "nested deeper"), (10, "inspect fewer steps")],
)
def test_a_failed_replay_names_the_reason(served, first, why):
    with served.follow() as events:
        served.post("/api/runs/alpha/looks", {"from": first, "to": first})
        found = wait_for_look(served, events, first, first)
    assert found["state"] == "failed"
    assert why in found["message"]
    assert found["look"] is None


@pytest.mark.parametrize(
    "values",
    [
        *({}, {"from": 0, "to": 1}, {"from": "1; rm", "to": 2}, {"from": 1, "to": 2, "x": 1}),
        *([1, 2], {"from": 1.5, "to": 2}, {"from": 1, "to": 10**30}),
    ],
)
def test_a_replay_request_with_invalid_steps_is_refused(served, values):
    assert served.post("/api/runs/alpha/looks", values).status == 400


def test_a_replay_request_with_too_many_or_no_steps_is_refused(served):
    answer = served.post("/api/runs/alpha/looks", {"from": 1, "to": 1_000_000})
    assert answer.status == 409
    assert "1,000,000 steps" in answer.json["problem"]
    assert served.post("/api/runs/alpha/looks", {"from": 2, "to": 1}).status == 409
    assert served.request(
        "POST", "/api/runs/alpha/looks", {"Origin": served.address}, b"x" * 5_000
    ).status in (400, 413)


def test_only_one_replay_runs_and_it_ends_with_the_server(folder):
    command = (sys.executable, "-c", REPLAY)
    with RunningDashboard(folder, command) as running:
        assert running.post("/api/runs/alpha/looks", {"from": 7, "to": 7}).status == 202
        message = ""
        while not (said := re.match(r"process (\d+) trains 7 steps", message)):
            message = running.get("/api/runs/alpha/looks/7-7").json["message"]
        busy = running.post("/api/runs/alpha/looks", {"from": 1, "to": 1})
        assert busy.status == 409
        assert "steps 7 to 7 of alpha" in busy.json["problem"]
    assert not psutil.pid_exists(int(said[1]))
    assert running.dashboard._looks.find("alpha", 7, 7).state == "failed"


# --- followed runs


def append(run, *lines):
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(line.to_json() + "\n" for line in lines))
    with_status(run)


def test_all_pages_receive_new_steps_of_a_run(served, folder, tmp_path):
    run = with_owner(made_run(folder / "live", train_line(1)))
    assert served.get("/api/runs").status == 200
    with served.follow() as one, served.follow() as two:
        assert served.get("/api/runs/live/curves").json["columns"]["step"] == [1]
        resumed = Resumed(step=2, from_step=1)
        append(run, train_line(2, step_seconds=0.2), validation_line(2), resumed)
        for events in (one, two):
            _, told = events.next("steps")
            assert told["id"] == "live"
            assert told["columns"]["step"] == [2]
            assert set(told["columns"]) == set(served.get("/api/runs/live/curves").json["columns"])
            assert [row["step"] for row in told["validations"]] == [2]
            assert [mark["event"] for mark in told["events"]] == ["resumed"]
        with (run / "metrics.jsonl").open("a") as file:  # an incomplete line is not sent
            half = train_line(3).to_json()
            file.write(half[:50])
            file.flush()
            append(folder / "alpha", train_line(3))  # alpha is trained by no process
            assert one.next("steps")[1]["id"] == "alpha"
            file.write(half[50:] + "\n")
        assert one.next("steps")[1]["columns"]["step"] == [3]
        (run / "metrics.jsonl").rename(tmp_path / "old")
        append(run, train_line(1), train_line(2))
        assert one.next("curves")[1] == {"id": "live"}
        append(run, train_line(3))
        assert one.next("steps")[1]["columns"]["step"] == [3]
        assert len(served.dashboard._follower._tails) == len(served.dashboard._table.paths)


def test_a_page_that_does_not_read_is_disconnected_without_delaying_others(served):
    subscribers = served.dashboard._subscribers
    with served.follow() as other, socket.socket() as dead:
        before = set(subscribers._pages)
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        dead.connect(("127.0.0.1", served.port))
        headers = f"Host: localhost\r\nCookie: {served.cookie}\r\n"
        dead.sendall(f"GET /api/follow HTTP/1.1\r\n{headers}\r\n".encode())
        while len(subscribers._pages - before) < 1:
            served.get("/api/runs/alpha")
        pages: set = set()
        for number in range(100):
            pages |= subscribers._pages
            served.publish("curves", CurvesChanged(id=f"{number} {'x' * 1_000_000}"))
            while not other.next("curves")[1]["id"].startswith(f"{number} "):
                pass  # a message about a run
            if any(page.is_disconnected for page in pages):
                break
        (let_go,) = (page for page in pages if page.is_disconnected)
        assert not let_go._waiting


def test_following_is_refused_if_too_many_pages_are_open(served, monkeypatch):
    with served.follow():
        monkeypatch.setattr(page_subscribers, "MAX_PAGES", 1)
        assert served.get("/api/follow").status == 503


def test_run_id_is_a_hash_for_unusual_names():
    assert run_id("..") == "~" + hashlib.sha256(b"..").hexdigest()[:24]
    assert run_id(".hidden").startswith("~")
    assert run_id("a/b").startswith("~")
    assert run_id("a" * 101).startswith("~")
    assert run_id("sweep_1-lr.5") == "sweep_1-lr.5"


def test_an_incomplete_or_too_large_request_does_not_block_others(served):
    with socket.create_connection(("127.0.0.1", served.port), HANG_SECONDS) as half:
        half.sendall(b"GET /api/runs HTTP/1.1\r\nHost: ")
        assert served.get("/api/runs").status == 200
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=HANG_SECONDS)
    connection.request("GET", "/api/runs", headers={"Cookie": served.cookie, "X": "x" * 70_000})
    assert connection.getresponse().status in (400, 431)
    connection.close()
