"""A run as a Ray job on a real head: submitted, followed, read, and refused without the token."""

import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from support.canaries import PAGE_KEY, PASSWORD, USER, WANDB_KEY, leaks
from support.cluster.processes import HANG_SECONDS, wait_until
from support.cluster.ray_head import RayHead
from support.cluster.strike import standing_at
from support.command import transloom
from support.faults.moments import Orders
from support.files.guarded_server import GuardedServer
from support.recipes import write_yaml
from support.wheel import unpacked_wheel

import transloom as api
from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import JobFolder, JobRecord
from cluster.launchers.ray_job.submit_checks import check_jobs
from cluster.supervision.invocation import current_user
from foundation.extensions import FOLDER_VARIABLE
from run_store.record.metrics_file import train_lines


@pytest.fixture
def decoys(tmp_path):
    """Return a folder with packages of transloom's names, which must never be imported."""
    folder = tmp_path / "project"
    for name in ("model", "trainer", "data_pipeline"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('a decoy was imported')")
    return folder


@pytest.fixture
def served_dataset(phrasebook):
    """Yield a server of the prepared phrase book that requires a password."""
    files = {
        str(path.relative_to(phrasebook)): path.read_bytes()
        for path in phrasebook.rglob("*")
        if path.is_file()
    }
    with GuardedServer(files, f"{USER}:{PASSWORD}") as server:
        yield server


@pytest.mark.proof
def test_a_job_in_a_folder_with_decoys_reads_a_protected_dataset_and_leaks_no_credential(
    runs, one_rank, decoys, ray_head, served_dataset, monkeypatch, tmp_path
):
    """Driver, rank and worker of a job that was submitted by the API import transloom's packages.

    The nodes have a password for the dataset, a W&B key and Ray's token in their environment.
    """
    monkeypatch.chdir(decoys)
    run = runs.folder / "job"
    overrides = {
        "trainer.max_steps": 12,
        "data.dataset": served_dataset.url,
        "data.cache": str(tmp_path / "cache"),
        "tracking.wandb": "offline",
    }
    job = api.submit(runs.recipe, overrides, address=ray_head.dashboard, run=run)
    assert job.run.path == run

    address = ["--address", ray_head.dashboard]
    log = transloom(
        "jobs", "logs", job.id, "--follow", *address, cwd=decoys, PYTHONPATH=str(decoys)
    )
    assert "step 12/12" in log.stdout, log.stdout + log.stderr
    assert "attachments=" not in log.stdout  # Ray's line with the shell command
    assert "Finished at step 12" in log.stdout
    assert job.status()["status"] == "SUCCEEDED"
    assert job.run.step == 12
    assert "step 12/12" in job.logs()
    assert runs.curve("job") == one_rank.curve("one-rank")[:12]
    assert runs.digests("job") == one_rank.digests("one-rank")[:12]

    assert set(served_dataset.shown) == {served_dataset.wanted}  # all requests had the password
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    assert list(ray_head.folder.rglob("*.out"))
    (tmp_path / "said").write_text(log.stdout + log.stderr)
    places = [run, tmp_path / "said", tmp_path / "cache", ray_head.folder]
    assert leaks([PASSWORD, WANDB_KEY, PAGE_KEY, ray_head.token], *places) == []


# Extension: in each process of the job that has the variables of the file on the node, it writes
# the process's title, a hash of the secret, and the place from which transloom was imported.
SPY = """
import hashlib, json, os, threading, time
from pathlib import Path

import data_pipeline


def look():
    while "SPY_FOLDER" not in os.environ:
        time.sleep(0.05)
    seen = {
        "title": Path("/proc/self/cmdline").read_bytes().decode().replace("\\0", " "),
        "secret": hashlib.sha256(os.environ["SECRET"].encode()).hexdigest(),
        "code": data_pipeline.__file__,
    }
    (Path(os.environ["SPY_FOLDER"]) / f"{os.getpid()}").write_text(json.dumps(seen))


threading.Thread(target=look, daemon=True).start()
"""


class Client:
    """The command on a machine that has only the wheel, with a head that was just started."""

    def __init__(self, installed: Path, folder: Path, head: RayHead) -> None:
        self.folder = folder
        self.head = head
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(installed),
            "RAY_AUTH_TOKEN": head.token,
        }

    def start(
        self, *words: object, head: bool = True, variables: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start a command in a process.

        Args:
            head: whether the command gets the head's address.
            variables: additional environment variables of the process.
        """
        program = "from transloom.cli.app import main; main()"
        address = ["--address", self.head.dashboard] if head else []
        return subprocess.Popen(
            [sys.executable, "-P", "-c", program, *map(str, words), *address],
            cwd=self.folder,
            env=self._environment | dict(variables or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(
        self, *words: object, head: bool = True, variables: Mapping[str, str] | None = None
    ) -> Any:
        process = self.start(*words, "--json", head=head, variables=variables)
        said, complained = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode == 0, said + complained
        return json.loads(said)


class Place(NamedTuple):
    """Files and folders that the jobs of the tests below need."""

    runs: Path
    recipe: Path
    environment: Path
    spies: Path
    secret: str


@pytest.fixture
def place(runs, tmp_path, decoys) -> Place:
    """Return a project with an extension, and with secrets that must not be sent."""
    spies = tmp_path / "spies"
    spies.mkdir()
    secret = f"canary-{secrets.token_hex(16)}"
    environment = tmp_path / "node.env"
    environment.write_text(f"SECRET={secret}\nSPY_FOLDER={spies}\n")
    environment.chmod(0o600)
    (decoys / "spy.py").write_text(SPY)
    (decoys / ".env").write_text(f"SECRET={secret}\n")
    (decoys / "keys").write_text(secret)
    values = yaml.safe_load(runs.recipe.read_text())
    values |= {"extensions": ["spy"], "extension_folder": str(decoys)}
    values["cluster"] |= {"ranks": 2, "cpus_per_rank": 1.5}  # room for one job on four CPUs
    values["trainer"]["max_steps"] = 60
    values["checkpoints"] = {"every_steps": 10}
    recipe = write_yaml(decoys / "spied.yaml", values)
    return Place(runs.folder, recipe, environment, spies, secret)


def record_of(run: Path, job: str) -> JobRecord:
    return JobFolder.of(run, job).read()


# This is a shorter form of the next test. It omits cases of other tests: a third job, a job that
# does not wait, and the report of a lost job, in tests/cluster/launchers/ray_job; a killed rank
# that is replaced, in test_faults.py.
def test_a_job_waits_for_another_that_is_stopped_and_tried_again(
    place: Place, undisturbed, runs, ray_head, orders, decoys, tmp_path
):
    """Only one of two jobs fits; the first is stopped and tried again, with an unchanged curve."""
    client = Client(changed_installation(tmp_path), decoys, ray_head)
    again = use_a_cluster(client, place, orders, whole=False)
    wait_for_success(place.runs / "first", again)
    no_secret_is_told(client, place)
    no_secret_is_kept(ray_head, place, whole=False)
    assert_undisturbed(runs, undisturbed)
    look_at_spies(place)


@pytest.mark.chaos
def test_jobs_run_from_their_submission_to_the_loss_of_their_head(
    place: Place, undisturbed, runs, ray_head, decoys, tmp_path
):
    """Only one of three jobs fits; a rank, a job and the head are lost, with an unchanged curve."""
    orders = Orders(tmp_path / "orders")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        head = RayHead(Path(folder), cpus=4, environment=orders.environment)
        try:
            client = Client(changed_installation(tmp_path), decoys, head)
            again = use_a_cluster(client, place, orders, whole=True)
            with standing_at(orders, step=45):
                no_secret_is_told(client, place)
                head.stop()
        finally:
            head.stop()
        no_secret_is_kept(head, place, whole=True)

    run = place.runs / "first"
    # Ray ends a job's processes within a second or two of its head's death.
    wait_until(lambda: client.ask("jobs", "status", run, head=False)["status"] == "LOST")
    assert client.ask("jobs", "status", run, head=False)["id"] == again
    log = client.ask("jobs", "logs", run, "-n", "5", head=False)["log"]
    assert log.count("\n") <= 5
    assert log

    elsewhere = ["--env-file", place.environment, "--address", ray_head.dashboard, "--json"]
    told = transloom("jobs", "retry", run, *elsewhere, cwd=tmp_path, **trusted(place, again))
    assert told.returncode == 0, told.stderr
    wait_for_success(run, json.loads(told.stdout)["job"])
    assert_undisturbed(runs, undisturbed)
    look_at_spies(place)


def changed_installation(folder: Path) -> Path:
    """Return another user's installation, with code that differs from the head's."""
    installed = unpacked_wheel(folder)
    with (installed / "model" / "loss.py").open("a") as code:
        code.write("# not what the head has installed\n")
    return installed


def wait_for_success(run: Path, job: str) -> None:
    wait_until(lambda: JobFolder.of(run, job).record_file.exists())
    wait_until(lambda: record_of(run, job).exit_code is not None)
    assert record_of(run, job).state == "SUCCEEDED"


def no_secret_is_told(client: Client, place: Place) -> None:
    shown = client.ask("jobs", "list")
    api = json.dumps(client.head.ask("v0/actors?detail=1&limit=10000"))
    assert place.secret not in api + json.dumps(shown)


def no_secret_is_kept(head: RayHead, place: Place, whole: bool) -> None:
    """Check that the files of the head and the runs contain no secret."""
    written = [head.folder, *(place.runs / name for name in ("first", *others(whole)))]
    assert leaks([place.secret], *written) == []


def assert_undisturbed(runs, undisturbed) -> None:
    assert runs.curve("first") == undisturbed.curve("undisturbed")
    assert runs.digests("first") == undisturbed.digests("undisturbed")


def others(whole: bool) -> tuple[str, ...]:
    """Return the names of the runs that wait for the first run."""
    return ("second", "third") if whole else ("second",)


def use_a_cluster(client: Client, place: Place, orders: Orders, whole: bool) -> str:
    """Train `second` and `third` after `first`, submit `first` again, and return its new id."""
    variables = ["--env", "SECRET", "--env", "SPY_FOLDER"]
    submit = ["submit", place.recipe, "--env-file", place.environment, *variables]
    first = client.ask(*submit, "--run", place.runs / "first")
    assert first["sent_code"]
    with standing_at(orders, step=15) as rank:
        refused = client.start("submit", place.recipe, "--run", place.runs / "first")
        said, noted = refused.communicate(timeout=HANG_SECONDS)
        assert (refused.returncode, said) == (1, "")
        assert noted.startswith("connecting to")
        assert f"in use by the job {first['job']} of {current_user()}, process" in noted
        assert f"transloom jobs stop {place.runs / 'first'}" in noted
        if not whole:  # where the folder is not visible, the cluster's jobs are checked
            check_jobs(client.head.dashboard, str(place.runs / "second"))
            with pytest.raises(ClusterError):
                check_jobs(client.head.dashboard, first["run"])
        # Four CPUs have no room for two of these jobs either.
        few = ["trainer.max_steps=2", "cluster.ranks=1", "cluster.cpus_per_rank=2.5"]
        names = others(whole)
        followers, later = [], []
        for name in names:
            followers.append(client.start(*submit, *few, "--run", place.runs / name, "--follow"))
            later.append(followers[-1].stdout.readline().strip())
        for name, job in zip(names, later, strict=True):
            wait_until(lambda run=place.runs / name, job=job: is_waiting(run, job))
        jobs = {job["id"]: job for job in client.ask("jobs", "list")}
        assert jobs[first["job"]]["status"] == "RUNNING"
        assert {jobs[job]["status"] for job in later} == {"WAITING"}
        waits_for = [jobs[job]["waits_for"] for job in later]
        assert waits_for[0].startswith("capacity: it needs 1 × (2.5 CPU); 1 CPU")
        watched = {job: client.ask("watch", job) for job in (first["job"], later[0])}
        assert watched[first["job"]]["standing"]["state"] == "training"
        assert watched[first["job"]]["standing"]["vitals"]
        assert watched[later[0]]["job"]["waits_for"].startswith("capacity: it needs 1 × (2.5 CPU)")
        if whole:
            assert f"{first['job']} of" in waits_for[1]
            refused = client.ask(*submit, "--no-wait", "--run", place.runs / "refused")["job"]
            wait_until(lambda: client.ask("jobs", "status", refused)["status"] == "FAILED")
            assert "without --no-wait" in client.ask("jobs", "status", refused)["message"]
            os.kill(rank, signal.SIGKILL)
    with standing_at(orders, step=30):
        stopping = client.start("jobs", "stop", first["job"])
        log = place.runs / "first" / "log.txt"
        wait_until(lambda: "SIGTERM was received: the ranks leave after" in log.read_text())
    said, complained = stopping.communicate(timeout=HANG_SECONDS)
    assert stopping.returncode == 0, complained
    assert f"{first['job']}: STOPPED" in said
    stopped = record_of(place.runs / "first", first["job"])
    assert (stopped.state, stopped.exit_code, len(stopped.attempts)) == ("STOPPED", 75, 1)
    assert stopped.attempts[0].step in (30, 31)  # the ranks get the request after the log line

    for name, job, follower in zip(names, later, followers, strict=True):
        wait_for_success(place.runs / name, job)
        with follower:
            log, complained = follower.stdout.read(), follower.stderr.read()
        assert follower.returncode == 0, complained
        assert "Finished at step 2" in log
    if whole:
        trained = [line.time for line in train_lines(place.runs / "second" / "metrics.jsonl")]
        assert max(trained) <= record_of(place.runs / "third", later[1]).attempts[0].started
    retry = ["jobs", "retry", first["job"], "--env-file", place.environment]
    retrying = client.start(*retry, variables=trusted(place, first["job"]))
    said, noted = retrying.communicate(timeout=HANG_SECONDS)
    again = said.strip()  # only the id, for scripts
    assert re.fullmatch(r"[\w-]+", again), said + noted
    assert again != first["job"]
    assert f"transloom jobs logs -f {again} --address {client.head.dashboard}" in noted
    assert f"transloom jobs stop {again} --address" in noted
    assert re.search(r"sending the recipe and \d+ files of code \(\d\.\d MB\)", noted)
    return again


def trusted(place: Place, job: str) -> dict[str, str]:
    """Return the environment of a user who trusts the extensions that were sent with a job."""
    sent = JobFolder.of(place.runs / "first", job).path / "extensions"
    return {FOLDER_VARIABLE: str(sent)}


def is_waiting(run: Path, job: str) -> bool:
    folder = JobFolder.of(run, job)
    return folder.record_file.exists() and folder.read().waits_for not in (None, "its turn")


def look_at_spies(place: Place) -> None:
    """Check that driver, ranks and data workers had the values and the code sent with the job."""
    seen = [json.loads(file.read_text()) for file in place.spies.iterdir()]
    assert {spy["secret"] for spy in seen} == {hashlib.sha256(place.secret.encode()).hexdigest()}
    sent = [spy for spy in seen if "/working_dir_files/" in spy["code"]]
    for title in ("ray::RankActor", "ray::DataWorker", " train "):
        assert any(title in spy["title"] for spy in sent), title


# tests/cluster/ray/test_jobs.py tests the messages without any token.
def test_a_client_with_a_wrong_token_is_refused(decoys, ray_head):
    result = transloom(
        "jobs", "list", "--address", ray_head.dashboard, cwd=decoys, RAY_AUTH_TOKEN="0" * 64
    )
    assert result.returncode == 1
    assert "token" in result.stderr
    assert "Traceback" not in result.stderr
