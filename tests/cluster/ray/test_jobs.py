import itertools
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD as NAMESPACE
from ray._raylet import GcsClient
from ray.dashboard.consts import (
    DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX,
    WAIT_AVAILABLE_AGENT_TIMEOUT,
)
from support.cluster.processes import wait_until
from support.cluster.ray_head import RayHead
from support.quiet_server import QuietHandler, QuietServer

from cluster.errors import ClusterError
from cluster.ray import jobs
from cluster.ray.authentication import enable_authentication
from cluster.ray.exposure import ClusterExposure, HeadProbe
from cluster.ray.job_command import Attachment, shell_command
from cluster.ray.jobs import (
    job_logs,
    job_status,
    list_jobs,
    stop_job,
    submit,
    wait_for_job,
    without_line,
)

Ask = Callable[[str], object]


def look_at_the_head(dashboard: str) -> HeadProbe:
    return ClusterExposure(dashboard).wait()


ASK = [list_jobs, look_at_the_head]  # the second call precedes each submission

# The program prints its arguments. Once the file `go` exists, it also prints an attachment, its
# folder and a variable.
PROGRAM = """
import os, sys, time
print("arguments", sys.argv[2:], flush=True)
while not os.path.exists("go"):
    time.sleep(0.05)
print("attachment", open(sys.argv[1]).read())
print("folder", os.getcwd())
print("variable", os.environ.get("FLAVOUR"))
"""


def test_the_shell_command_keeps_every_character_of_its_arguments(tmp_path: Path) -> None:
    attachments, folder = tmp_path / "ray's own", tmp_path / "a shared $HOME"
    attachments.mkdir()
    folder.mkdir()
    (attachments / "my recipe's.yaml").write_text("a: 1")
    (folder / "go").touch()
    awkward = ["", "two words", "it's", '"', "$HOME", "`date`", "a\nb", "*", "model.width=1;rm"]
    line = shell_command(
        [
            Path(sys.executable).name,
            "-c",
            PROGRAM,
            Attachment("my recipe's.yaml", b""),
            *awkward,
        ],
        folder,
        Path(sys.executable).parent,
    )
    shell = subprocess.run(["sh", "-c", line], cwd=attachments, capture_output=True, text=True)
    assert shell.stderr == ""
    expected = f"arguments {awkward}\nattachment a: 1\nfolder {folder}\nvariable None\n"
    assert shell.stdout == expected


def test_a_program_missing_next_to_python_is_found_on_the_path(tmp_path: Path) -> None:
    line = shell_command(["echo", "found"], tmp_path, tmp_path / "no such folder")
    assert subprocess.check_output(["sh", "-c", line], text=True) == "found\n"


@pytest.mark.parametrize("name", ["model.py", "folder/recipe.yaml", "../recipe.yaml"])
def test_an_attachment_in_a_folder_or_with_a_python_name_is_refused(name: str) -> None:
    with pytest.raises(AssertionError):
        Attachment(name, b"")


def test_a_job_runs_from_submission_to_its_result(ray_head: Any, tmp_path: Path) -> None:
    command = ["python", "-c", PROGRAM, Attachment("recipe.yaml", b"width: 64"), "model.width=128"]
    job_id = submit(
        command,
        address=ray_head.dashboard,
        folder=tmp_path,
        environment={"FLAVOUR": "salty"},
        metadata={"recipe": "tiny"},
    )
    assert job_status(ray_head.dashboard, job_id).status in {"PENDING", "RUNNING"}
    (tmp_path / "go").touch()
    log = "".join(job_logs(ray_head.dashboard, job_id, follow=True))  # the log ends with the job
    for line in (
        "arguments ['model.width=128']",
        "attachment width: 64",
        f"folder {tmp_path}",
        "variable salty",
    ):
        assert line in log.splitlines()
    assert "attachments=$PWD" not in log  # Ray's line with the whole command is left out
    job = wait_for_job(ray_head.dashboard, job_id)
    assert (job.status, job.exit_code, job.finished) == ("SUCCEEDED", 0, True)
    assert job.metadata["recipe"] == "tiny"
    assert job.command.startswith("python -c")
    assert job.command.endswith("recipe.yaml model.width=128")
    assert job.started is not None
    assert job.ended is not None
    assert job.started < job.ended <= time.time()
    assert "".join(job_logs(ray_head.dashboard, job_id)) == log
    assert job in list_jobs(ray_head.dashboard)


@contextmanager
def agent_unknown(head: RayHead, seconds: float) -> Iterator[threading.Event]:
    """Remove the agent's address from a head for some seconds, as if the agent did not listen yet.

    Yield an event that is set when the head knows the agent again.
    """
    enable_authentication(create_token=False)
    gcs = GcsClient(address=head.address)
    (key,) = gcs.internal_kv_keys(DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX.encode(), NAMESPACE)
    entry = gcs.internal_kv_get(key, NAMESPACE)
    gcs.internal_kv_del(key, False, NAMESPACE)
    known_again = threading.Event()

    def enter() -> None:
        known_again.set()
        gcs.internal_kv_put(key, entry, True, NAMESPACE)

    timer = threading.Timer(seconds, enter)
    timer.start()
    try:
        yield known_again
    finally:
        timer.join()


@pytest.mark.long
def test_a_job_waits_for_a_head_that_cannot_start_jobs_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        head = RayHead(Path(folder), cpus=1)
        monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
        try:
            with agent_unknown(head, 2 * WAIT_AVAILABLE_AGENT_TIMEOUT + 2) as known_again:
                with monkeypatch.context() as impatient:
                    impatient.setattr(jobs, "AGENT_SECONDS", 0.0)
                    with pytest.raises(ClusterError, match=r"agent on it .* dashboard_agent.log"):
                        submit(["true"], address=head.dashboard, folder=tmp_path)
                job_id = submit(["true"], address=head.dashboard, folder=tmp_path)
                assert known_again.is_set()
            assert wait_for_job(head.dashboard, job_id).status == "SUCCEEDED"
        finally:
            head.stop()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_command_line_is_removed_from_a_log_however_the_log_is_cut(size: int) -> None:
    line, text = "Running: a\nb\n", "Ray\nRunning: a\nb\nfirst\nRunning: a\nb\n"
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    assert "".join(without_line(pieces, line)) == "Ray\nfirst\nRunning: a\nb\n"


def test_a_log_without_the_command_line_is_passed_on_soon() -> None:
    endless = itertools.repeat("x" * 1_000)
    assert next(without_line(endless, "Running: a\n")).startswith("x")
    assert "".join(without_line(iter(["short"]), "Running: a\n")) == "short"


def test_a_job_that_failed_or_was_stopped_has_that_status(ray_head: Any, tmp_path: Path) -> None:
    address = ray_head.dashboard
    failing = submit(["sh", "-c", "echo broken; exit 3"], address=address, folder=tmp_path)
    homeless = submit(["true"], address=address, folder=tmp_path / "nowhere")
    sleeping = submit(["sleep", "1000"], address=address, folder=tmp_path)

    failed = wait_for_job(address, failing)
    assert (failed.status, failed.exit_code) == ("FAILED", 3)
    assert "broken" in failed.message
    assert "attachments=$PWD" not in failed.message
    lost = wait_for_job(address, homeless)
    assert lost.status == "FAILED"
    assert f"no folder {tmp_path / 'nowhere'}" in lost.message

    assert not job_status(address, sleeping).finished
    assert stop_job(address, sleeping)
    assert wait_for_job(address, sleeping).status == "STOPPED"
    wait_until(lambda: not stop_job(address, sleeping))  # its supervisor may live a little longer

    ids = [job.id for job in list_jobs(address)]
    assert [i for i in ids if i in {failing, homeless, sleeping}] == [failing, homeless, sleeping]
    with pytest.raises(ClusterError, match=f"{failing} already exists"):
        submit(["true"], address=address, folder=tmp_path, job_id=failing)


@pytest.mark.parametrize("ask", [job_status, stop_job, lambda *a: list(job_logs(*a, follow=True))])
def test_an_unknown_job_is_named_in_the_error(ray_head: Any, ask: Any) -> None:
    with pytest.raises(ClusterError, match=r"knows no job nothing\. .*`transloom jobs list"):
        ask(ray_head.dashboard, "nothing")


@pytest.mark.parametrize("token", [None, "0" * 64], ids=["no token", "a wrong token"])
def test_a_client_without_the_token_is_refused(
    token: str | None, ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{ray_head.dashboard}/api/jobs/", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    assert refusal.value.code == (403 if token else 401)
    refusal.value.close()

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    complaint = "refuses this user's token" if token else "this user has none"
    for ask in (
        lambda: list_jobs(ray_head.dashboard),
        lambda: list(job_logs(ray_head.dashboard, "any", follow=True)),
        lambda: submit(["true"], address=ray_head.dashboard, folder=tmp_path),
    ):
        with pytest.raises(ClusterError, match=f"{complaint}.*RAY_AUTH_TOKEN"):
            ask()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("auto", "auto is not the address of a Ray dashboard.*http://127.0.0.1:8265"),
        ("10.0.0.1:6379", "not the address of a Ray dashboard"),
        ("http://127.0.0.1:1", "No Ray dashboard answers at http://127.0.0.1:1 .*ssh -L"),
        ("http://", "No Ray dashboard answers"),
    ],
)
@pytest.mark.parametrize("ask", ASK)
def test_an_address_without_a_dashboard_is_refused(
    address: str, complaint: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(ClusterError, match=complaint):
        ask(address)


@pytest.mark.parametrize("ask", ASK)
def test_the_port_for_drivers_is_refused_as_a_dashboard(ray_head: Any, ask: Ask) -> None:
    address = f"http://{ray_head.address}"
    with pytest.raises(ClusterError, match=rf"No Ray dashboard answers at {address}") as caught:
        ask(address)
    assert "does not speak HTTP" in str(caught.value)  # without the bytes of Ray's answer
    assert "6379 is the port for drivers" in str(caught.value)
    assert "x00" not in str(caught.value)


class AnotherServer(QuietHandler):
    """Server with the same answer to every request."""

    code, page = 200, b""

    def do_GET(self) -> None:
        self.send(self.code, self.page)


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, b"<html>a page</html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"ray_version": "none"}'),
        (404, b"not found"),
        (500, b""),
    ],
)
def test_a_server_that_is_not_a_dashboard_is_refused(
    code: int, body: bytes, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setattr(AnotherServer, "code", code)
    monkeypatch.setattr(AnotherServer, "page", body)
    with (
        QuietServer(AnotherServer) as server,
        pytest.raises(ClusterError, match=r"(not a|No) Ray dashboard.*8265"),
    ):
        ask(server.url)


def test_the_given_address_overrides_ray_s_variables(
    ray_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = list_jobs(ray_head.dashboard)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.delattr("os.unsetenv")  # other threads read the environment meanwhile
    assert list_jobs(ray_head.dashboard) == jobs


def test_the_token_is_sent_instead_of_a_netrc_password(
    ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default, requests sends the password of ~/.netrc."""
    jobs = list_jobs(ray_head.dashboard)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password wrong\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert list_jobs(ray_head.dashboard) == jobs
