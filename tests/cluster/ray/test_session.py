import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private.node import Node
from ray.job_submission import JobSubmissionClient
from support.cluster.processes import children, is_alive, wait_until
from support.command import run_command

from cluster.errors import ClusterError, EmbeddedRayError
from cluster.packages import INSTALLATION, PACKAGES
from cluster.ray import embedded, jobs
from cluster.ray.authentication import enable_authentication
from cluster.ray.embedded import EmbeddedRay, require_gpus
from cluster.ray.private import IGNORE_UNREAD_ERRORS, machine_cpus, started_processes
from cluster.ray.session import ray_session

OWN = [str(INSTALLATION / name / "__init__.py") for name in PACKAGES]

# A driver that prints what it and a worker import, and which processes it has started.
DRIVER = f"""
import json, os, signal, sys, time
import psutil, ray
from cluster.errors import EmbeddedRayError
from cluster.ray.session import ray_session

def imported():
    return [__import__(name).__file__ for name in {PACKAGES}]

@ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1)
class Worker:
    def imported(self):
        return imported()

    def model(self):
        return __import__("model").__file__

    def process_id(self):
        return os.getpid()

    def work_forever(self):
        while True:
            pass

if sys.argv[2:] == ["plain"]:
    ray.init(sys.argv[1], log_to_driver=False)
    print(ray.get(Worker.remote().model.remote()))
    sys.exit()
def drive(address):
    with ray_session(address):
        worker = Worker.remote()
        os.kill(ray.get(worker.process_id.remote()), signal.SIGKILL)  # Ray has news to report
        answer = dict(driver=imported(), worker=ray.get(worker.imported.remote()))
        if sys.argv[2:] == ["wait"]:
            worker.work_forever.remote()
            time.sleep(0.5)
        answer["processes"] = [child.pid for child in psutil.Process().children(recursive=True)]
        print(json.dumps(answer), flush=True)
        if sys.argv[2:] == ["wait"]:
            time.sleep(1000)

if sys.argv[1] != "embedded":
    drive(sys.argv[1])
    sys.exit()
for _ in range(10):  # on a busy machine Ray may time out
    try:
        drive(None)
    except EmbeddedRayError:
        continue
    break
"""


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """Return a folder with a driver, and packages of transloom's names that fail to import."""
    folder = tmp_path / "project"
    for name in ("trainer", "run_store", "model", "data_pipeline"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise ImportError('decoy {name}')")
    (folder / "driver.py").write_text(DRIVER)
    return folder


@pytest.mark.long
def test_embedded_ray_ignores_foreign_packages_in_the_folder_and_leaves_nothing_behind(
    decoys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    # HOME is that of a user who has no token.
    driver = run_command(sys.executable, "driver.py", "embedded", cwd=decoys, HOME=str(tmp_path))
    assert driver.stderr == ""
    answer = json.loads(driver.stdout)  # stdout contains nothing else
    assert answer["driver"] == answer["worker"] == OWN
    assert len(answer["processes"]) > 3
    assert not [pid for pid in answer["processes"] if is_alive(pid)]
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600


def test_workers_of_a_cluster_import_transloom_s_packages(decoys: Path, ray_head: Any) -> None:
    driver = (sys.executable, "driver.py", ray_head.address)
    plain = run_command(*driver, "plain", cwd=decoys, RAY_AUTH_MODE="token")
    assert "decoy" in plain.stderr  # without transloom's session, Ray imports the decoys
    done = run_command(*driver, cwd=decoys)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["driver"] == answer["worker"] == OWN


def test_workers_of_a_ray_job_import_transloom_s_packages(decoys: Path, ray_head: Any) -> None:
    enable_authentication(create_token=False)
    job_id = JobSubmissionClient(ray_head.dashboard).submit_job(
        entrypoint=f"{sys.executable} driver.py auto", runtime_env={"working_dir": str(decoys)}
    )
    job = jobs.wait_for_job(ray_head.dashboard, job_id)
    log = "".join(jobs.job_logs(ray_head.dashboard, job_id))
    assert job.exit_code == 0, log
    answer = json.loads(log.splitlines()[-1])
    assert answer["driver"] == answer["worker"] == OWN


@pytest.mark.long
def test_processes_of_a_killed_driver_end_within_seconds(decoys: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "driver.py", "embedded", "wait"],
        cwd=decoys,
        stdout=subprocess.PIPE,
        text=True,
    )
    with driver:
        assert driver.stdout is not None
        pids = json.loads(driver.stdout.readline())["processes"]
        agents = [pid for pid in pids if psutil.Process(pid).name().endswith("Agent")]
        driver.kill()
    # Ray's two agents no longer monitor anything, but wait a minute for the head.
    wait_until(lambda: not any(is_alive(pid) for pid in pids if pid not in agents), seconds=45)
    for pid in agents:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def ray_in_the_end(wanted: EmbeddedRay) -> Iterator[None]:
    """Start a session in up to five attempts, because Ray may time out on a busy machine."""
    with ExitStack() as stack:
        for _ in range(5):
            with suppress(EmbeddedRayError):
                stack.enter_context(ray_session(None, wanted))
                break
        assert ray.is_initialized()
        yield


@ray.remote(num_cpus=0)
def niceness() -> int:
    return os.nice(0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # from Ray
def test_a_failed_start_of_embedded_ray_leaves_nothing_and_the_next_start_has_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handler(number: int, frame: object) -> None: ...

    def time_out(**options: Any) -> None:
        try:
            initialise(**options)
        finally:  # Ray may also time out, on a busy machine
            started.extend(child for child in children() if child not in there)
        raise Exception("The current node timed out during startup.")

    there = children()  # such as a head of other tests
    started: list[psutil.Process] = []
    start_api_server = Node.start_api_server
    initialise = embedded.initialise
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "initialise", time_out)
            with (
                pytest.raises(EmbeddedRayError, match="The current node timed out during startup"),
                ray_session(None),
            ):
                pass
        assert len(started) >= 2
        assert not [process for process in started if is_alive(process.pid)]
        assert not ray.is_initialized()
        cpus = machine_cpus() + 2
        with ray_in_the_end(EmbeddedRay(cpus=cpus - 0.5, niceness=3)):
            assert started_processes().keys() == {"gcs_server", "raylet"}  # no dashboard
            assert ray.cluster_resources()["CPU"] == cpus
            assert ray.get(niceness.remote()) == os.nice(0) + 3
            require_gpus(0)
            with pytest.raises(
                ClusterError, match=r"needs 99 GPUs, but Ray has only [0-9]+ here\. Lower"
            ):
                require_gpus(99)
        assert signal.getsignal(signal.SIGTERM) is handler  # Ray had set a handler
        assert not ray.is_initialized()
        assert Node.start_api_server is start_api_server  # restored for other clusters
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_ray_that_cannot_start_raises_a_cluster_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")  # a folder that no user can create
    with (
        pytest.raises(ClusterError),
        ray_session(None),
    ):
        pass
    assert not ray.is_initialized()


@ray.remote(num_cpus=0)
class Failing:
    def fail(self) -> None:
        raise RuntimeError("read by nobody")

    def answer(self) -> None:
        pass


def test_an_error_whose_result_is_never_requested_is_not_printed(
    ray_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray reports such errors when the last reference to the result is deleted."""
    told: list[Exception] = []
    monkeypatch.setattr("ray._private.worker._unhandled_error_handler", told.append)
    with ray_session(ray_head.address):
        actor = Failing.remote()  # type: ignore[attr-defined]

        def leave_unread() -> None:
            unread = actor.fail.remote()
            ray.get(actor.answer.remote())  # wait until `fail` has run
            del unread

        for _ in range(5):
            leave_unread()
        before = list(told)
        del os.environ[IGNORE_UNREAD_ERRORS]
        wait_until(lambda: leave_unread() or told)
    assert before == []
    assert "read by nobody" in str(told[0])
    assert IGNORE_UNREAD_ERRORS not in os.environ


def test_a_cluster_that_lacks_gpus_is_accepted_as_nodes_may_join_later(ray_head: Any) -> None:
    with ray_session(ray_head.address):
        require_gpus(99)


@pytest.mark.parametrize("token", [None, "0" * 64], ids=["no token", "a wrong token"])
def test_a_cluster_is_not_joined_without_its_token(
    token: str | None, ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    complaint = "refuses this user's token" if token else "this user has none"
    with (
        pytest.raises(ClusterError, match=f"{complaint}.*RAY_AUTH_TOKEN"),
        ray_session(ray_head.address),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("http://127.0.0.1:8265", "web address.*transloom submit"),
        ("ray://127.0.0.1:10001", "web address.*transloom submit"),
        ("somewhere", "No Ray cluster was found at somewhere"),
        ("127.0.0.1:{free_port}", r"No Ray cluster answers at .* \(unavailable\)"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(
    address: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would try for minutes, so it is not called."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    asked: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = address.format(free_port=probe.getsockname()[1])
        with pytest.raises(ClusterError, match=complaint), ray_session(address):
            pass
    assert asked == []
