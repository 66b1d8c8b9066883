"""Targets of notifications: programs that misbehave, and messages without secrets."""

import json
import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest
from support.cluster.processes import HANG_SECONDS, is_alive, wait_until

from cluster.notify.notification import Notification, NotifiedScore, RunEvent
from cluster.notify.targets import DeliveryProblem, TargetError, open_target
from run_store.folder import RunFolder
from trainer.notify_config import NotifyTarget

COMMAND = "TRANSLOOM_NOTIFY"
LONG = 5.0
SCORE = NotifiedScore(name="loss", value=1.5)


def notification(text="Run tiny has finished.", run="runs/tiny"):
    return Notification.of(
        RunEvent("finished", text, 7, SCORE, ended=True), RunFolder(Path(run)), 9
    )


def command(*argv, **fields):
    target = NotifyTarget(command_from=COMMAND, **fields)
    return open_target(target, {COMMAND: json.dumps(argv)})


def test_a_message_describes_the_event_and_the_run():
    message = json.loads(notification().to_json())
    assert message["version"] == 1
    assert message["event"] == "finished"
    assert (message["run"], message["step"], message["max_steps"]) == ("tiny", 7, 9)
    assert message["score"] == {"name": "loss", "value": 1.5}
    assert message["folder"] == str(Path("runs/tiny").absolute())
    assert message["command"] == f"transloom status {Path('runs/tiny').absolute()}"
    assert message["host"] == socket.gethostname()
    assert message["time"].endswith("+00:00")
    minute = f"{message['time'][:16].replace('T', ' ')} UTC"
    assert minute in Notification.model_validate(message).to_text().decode()


def test_untrusted_text_becomes_one_short_paragraph_without_credentials():
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


@pytest.mark.parametrize("environment", [{}, {COMMAND: "  "}])
def test_a_variable_that_is_not_set_is_reported(environment):
    with pytest.raises(TargetError, match=f"{COMMAND} is not set in the environment of the driver"):
        open_target(NotifyTarget(command_from=COMMAND), environment)


READER = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"


def test_a_command_reads_the_event_and_its_arguments_reach_no_shell(tmp_path):
    file = tmp_path / "$(touch executed); `x`"
    assert command(sys.executable, "-c", READER, str(file)).send(sent := notification(), 60) is None
    assert json.loads(file.read_bytes()) == json.loads(sent.to_json())
    assert list(tmp_path.iterdir()) == [file]


def test_a_command_with_text_format_reads_two_lines(tmp_path):
    target = command(sys.executable, "-c", READER, str(tmp_path / "text"), format="text")
    sent = notification("Run <tiny>\n\x1b[31m has \ud800 finished.")
    assert target.send(sent, 60) is None
    message, details = (tmp_path / "text").read_text(encoding="utf-8").splitlines()
    assert message == sent.text
    assert details.startswith(f"{socket.gethostname()}, ")
    assert details.endswith(f": {sent.command}")
    assert "\x1b" not in message


def test_a_command_that_fails_or_is_missing_is_a_problem(tmp_path):
    failed = command(sys.executable, "-c", "import sys; sys.exit(3)").send(notification(), 60)
    assert failed == DeliveryProblem("the program ended with exit code 3")
    missing = command(str(tmp_path / "none")).send(notification(), 60)
    assert not missing.is_temporary
    assert "No such file" in missing.text
    (tmp_path / "data").touch(stat.S_IRUSR)
    assert "Permission denied" in command(str(tmp_path / "data")).send(notification(), 60).text


def test_a_command_that_does_not_read_its_input_is_no_failure():
    assert command("/bin/true").send(notification(1000 * "x"), 60) is None


SLEEPER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def pids_in(file: Path) -> list[int]:
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    return [int(pid) for pid in file.read_text().split()]


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path):
    target = command(sys.executable, "-c", SLEEPER, str(tmp_path / "pids"))
    problem = target.send(notification(), LONG)
    assert "did not end within 5 s" in problem.text
    for pid in pids_in(tmp_path / "pids"):
        wait_until(lambda: not is_alive(pid))  # noqa: B023


def test_a_running_command_is_killed_when_its_target_stops(tmp_path):
    target = command(sys.executable, "-c", SLEEPER, str(tmp_path / "pids"))
    problems = []
    sender = threading.Thread(target=lambda: problems.append(target.send(notification(), 600)))
    sender.start()
    pids = pids_in(tmp_path / "pids")
    target.stop()
    sender.join(HANG_SECONDS)
    assert "exit code -9" in problems[0].text
    for pid in pids:
        wait_until(lambda: not is_alive(pid))  # noqa: B023
    target.stop()  # no process is left to kill


def test_a_command_does_not_start_in_the_directory_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; sys.exit(os.getcwd() != '/')"
    assert command(sys.executable, "-c", code).send(notification(), 60) is None


@pytest.mark.parametrize(
    "value",
    [
        "/usr/bin/page --token s3cr3t",
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
def test_a_value_other_than_a_list_with_an_absolute_program_is_refused(value):
    target = NotifyTarget(command_from=COMMAND)
    with pytest.raises(TargetError, match=f"{COMMAND} has no command: expected a JSON list") as e:
        open_target(target, {COMMAND: value})
    assert "s3cr3t" not in str(e.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.slack.com/services/T0/B0/s3cr3t",
        "mailto://me:s3cr3t@mail.example",
        "https://host.example/notify?token=s3cr3t5cr3t",
    ],
)
def test_credentials_in_arguments_are_refused_because_other_users_see_them(address):
    with pytest.raises(TargetError, match=f"{COMMAND} has a credential.*file of mode 0600") as e:
        command("/usr/bin/apprise", address)
    assert "s3cr3t" not in str(e.value)


def test_sending_does_not_change_the_environment_of_the_process(tmp_path):
    before = dict(os.environ)
    command("/bin/true").send(notification(), 60)
    assert dict(os.environ) == before
