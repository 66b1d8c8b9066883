"""Targets of notifications: servers and programs that misbehave, and no secret in any message."""

import json
import os
import socket
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from support.cluster.processes import HANG_SECONDS
from support.proxy_server import proxy_of_environment
from support.webhook_server import SECRET, Misbehaviour, WebhookServer

from cluster.notify.notification import Notification, NotifiedScore, RunEvent
from cluster.notify.targets import CommandTarget, DeliveryProblem, TargetError, open_target
from trainer.notify_config import NotifyTarget
from trainer.runs.folder import RunFolder

URL, COMMAND = "TRANSLOOM_HOOK_URL", "TRANSLOOM_NOTIFY_COMMAND"
LONG = 5.0
SHORT = 0.4
SCORE = NotifiedScore(name="loss", value=1.5)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def notification(text="Run tiny has finished.", run="runs/tiny"):
    return Notification.of(
        RunEvent("finished", text, 7, SCORE, ended=True), RunFolder(Path(run)), 9
    )


def http(url, kind="webhook"):
    return open_target(NotifyTarget(kind=kind, url_from=URL), {URL: url})


def command(*argv, **fields):
    target = NotifyTarget(kind="command", command_from=COMMAND, **fields)
    return open_target(target, {COMMAND: json.dumps(argv)})


def test_a_webhook_receives_the_event_as_json():
    with WebhookServer() as server:
        assert http(server.url).send(sent := notification(), LONG) is None
    (message,) = server.messages
    assert message == json.loads(sent.to_json())
    assert message["version"] == 1
    assert message["event"] == "finished"
    assert (message["run"], message["step"], message["max_steps"]) == ("tiny", 7, 9)
    assert message["score"] == {"name": "loss", "value": 1.5}
    assert message["folder"] == str(Path("runs/tiny").absolute())
    assert message["command"] == f"transloom status {Path('runs/tiny').absolute()}"
    assert message["host"] == socket.gethostname()
    assert server.headers[0]["Content-Type"] == "application/json"
    assert server.paths == [f"/services/{SECRET}"]


def test_slack_receives_a_text_in_which_nothing_is_a_mention_or_a_link():
    text = "Run <!channel> has <https://evil.invalid|finished> & \x1b[31mred\x07\u202e."
    with WebhookServer() as server:
        assert http(server.url, "slack").send(notification(text), LONG) is None
    ((key, sent),) = server.messages[0].items()
    assert key == "text"
    assert not {"<", ">", "\x1b", "\x07", "\u202e"} & set(sent)
    assert "&lt;!channel&gt;" in sent
    assert "transloom status" in sent
    assert socket.gethostname() in sent


def test_a_text_of_others_is_one_short_paragraph_without_credentials():
    text = "a\n\n  Traceback\n" + 5000 * "x" + "https://u:s3cr3t@host/x"
    shown = notification(f"https://u:s3cr3t@host/x?sig=1 {text}").text
    assert "\n" not in shown
    assert "s3cr3t" not in shown
    assert len(shown) == 1000


def test_a_run_with_a_hostile_name_can_be_sent():
    name = "run\ud800\x1b]0;x\x07'; rm -rf $(x)"
    message = json.loads(notification(run=f"runs/{name}").to_json())
    assert "\x1b" not in message["run"]
    assert "'" in message["command"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_failure_of_the_server_may_pass(status):
    with WebhookServer(status) as server:
        problem = http(server.url).send(notification(), LONG)
    assert problem.is_temporary
    assert str(status) in problem.text
    assert SECRET not in problem.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 403, 404, 410])
def test_a_refusal_is_final_and_no_redirect_is_followed(status):
    with WebhookServer() as other, WebhookServer(status, moved_to=other.url) as server:
        problem = http(server.url).send(notification(), LONG)
        assert (other.paths, len(server.paths)) == ([], 1)
    assert not problem.is_temporary
    assert str(status) in problem.text
    assert SECRET not in problem.text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Misbehaviour.HANG, "did not answer within"),
        (Misbehaviour.DRIP, "did not answer within"),
        (Misbehaviour.CONTINUE, "did not answer within"),
        (Misbehaviour.CLOSE, "closed the connection"),
        (Misbehaviour.RESET, "Connection reset"),
        (Misbehaviour.GARBAGE, "did not answer with HTTP"),
    ],
)
def test_a_server_that_misbehaves_is_left(answer, said):
    """A server that drips would hold the attempt for ever if each byte renewed its time."""
    with WebhookServer(answer) as server:
        problem = http(server.url).send(notification(), SHORT)
    assert problem.is_temporary
    assert said in problem.text
    assert SECRET not in problem.text


def test_a_proxy_gets_no_request_to_this_machine_and_is_named_otherwise():
    with proxy_of_environment() as proxy, WebhookServer() as server:
        assert http(server.url).send(notification(), LONG) is None
        assert proxy.requests == []
        problem = http("http://hook.example/secret-path").send(notification(), LONG)
    assert f"proxy {proxy.netloc} of http_proxy" in problem.text
    assert problem.is_temporary
    assert "secret" not in problem.text


def test_a_port_without_a_server_and_one_without_tls():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{SECRET}"
        assert "Connection refused" in http(url).send(notification(), LONG).text
    with WebhookServer() as server:
        problem = http(server.url.replace("http:", "https:")).send(notification(), LONG)
    assert "TLS" in problem.text
    assert SECRET not in problem.text


@pytest.mark.parametrize(
    "value",
    [
        f"hooks.invalid/{SECRET}",
        f"ftp://hooks.invalid/{SECRET}",
        f"file:///{SECRET}",
        f"https:///{SECRET}",
        f"https://user:{SECRET}@hooks.invalid/",
        f"https://hooks.invalid:port/{SECRET}",
        f"https://hooks.invalid/a {SECRET}",
        f"https://hooks.invalid/{SECRET}\r\nX-Injected: 1",
        f"https://[hooks.invalid/{SECRET}",
        "",
        "  ",
    ],
)
def test_a_value_that_is_no_url_is_refused_without_being_shown(value):
    with pytest.raises(TargetError, match=f"{URL} (has no URL|is not set)") as caught:
        http(value)
    assert SECRET not in str(caught.value)


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(TargetError, match=f"{URL} is not set in the environment of the driver"):
        open_target(NotifyTarget(kind="slack", url_from=URL), {})


READER = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"


def test_a_command_reads_the_event_and_no_shell_reads_its_words(tmp_path):
    file = tmp_path / "$(touch executed); `x`"
    assert command(sys.executable, "-c", READER, str(file)).send(sent := notification(), 60) is None
    assert json.loads(file.read_bytes()) == json.loads(sent.to_json())
    assert list(tmp_path.iterdir()) == [file]


def test_a_command_reads_two_lines_for_a_person(tmp_path):
    target = command(sys.executable, "-c", READER, str(tmp_path / "text"), format="text")
    sent = notification("Run <tiny>\n\x1b[31m has \ud800 finished.")
    assert target.send(sent, 60) is None
    message, details = (tmp_path / "text").read_text(encoding="utf-8").splitlines()
    assert message == sent.text
    assert details.startswith(f"{socket.gethostname()}, ")
    assert details.endswith(f": {sent.command}")
    assert "\x1b" not in message


def test_a_command_that_fails_or_is_missing(tmp_path):
    failed = command(sys.executable, "-c", "import sys; sys.exit(3)").send(notification(), 60)
    assert failed == DeliveryProblem("the program ended with exit code 3")
    missing = command(str(tmp_path / "none")).send(notification(), 60)
    assert not missing.is_temporary
    assert "No such file" in missing.text
    (tmp_path / "data").touch(stat.S_IRUSR)
    assert "Permission denied" in command(str(tmp_path / "data")).send(notification(), 60).text


def test_a_command_that_reads_nothing_is_no_failure():
    assert command("/bin/true").send(notification(1000 * "x"), 60) is None


SLEEPER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def pids_in(file: Path) -> list[int]:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        if file.exists() and len(pids := file.read_text().split()) == 2:
            return [int(pid) for pid in pids]
        time.sleep(0.02)
    raise AssertionError(f"{file} was not written")


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} lives")


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path):
    target = command(sys.executable, "-c", SLEEPER, str(tmp_path / "pids"))
    problem = target.send(notification(), LONG)
    assert "did not end within 5 s" in problem.text
    for pid in pids_in(tmp_path / "pids"):
        wait_until_gone(pid)


def test_a_command_is_killed_when_the_process_ends(tmp_path):
    target = command(sys.executable, "-c", SLEEPER, str(tmp_path / "pids"))
    assert isinstance(target, CommandTarget)
    problems = []
    sender = threading.Thread(target=lambda: problems.append(target.send(notification(), 600)))
    sender.start()
    pids = pids_in(tmp_path / "pids")
    target.stop()
    sender.join(HANG_SECONDS)
    assert "exit code -9" in problems[0].text
    for pid in pids:
        wait_until_gone(pid)
    target.stop()  # nothing is left


def test_a_command_does_not_start_in_the_directory_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; sys.exit(os.getcwd() != '/')"
    assert command(sys.executable, "-c", code).send(notification(), 60) is None


@pytest.mark.parametrize(
    "value",
    [
        "/usr/bin/page --team ml",
        "page",
        '["page"]',
        '["./page"]',
        '["../page"]',
        "[]",
        '"/bin/sh"',
        '{"argv": ["/bin/sh"]}',
        '["/bin/sh", 5]',
        '["/bin/sh\\u0000x"]',
        "[" * 100_000,
    ],
)
def test_a_value_that_is_no_list_of_an_absolute_program_is_refused(value):
    target = NotifyTarget(kind="command", command_from=COMMAND)
    with pytest.raises(TargetError, match=f"{COMMAND} has no command: expected a JSON list"):
        open_target(target, {COMMAND: value})


def test_the_environment_of_the_process_is_not_changed(tmp_path):
    before = dict(os.environ)
    command("/bin/true").send(notification(), 60)
    assert dict(os.environ) == before
