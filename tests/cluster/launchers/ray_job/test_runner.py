"""Run a job with shell commands as attempts, on a cluster that the test describes."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.cluster.processes import wait_until
from support.recipes import tiny_values
from support.records.lines import train_line

from cluster.errors import ClusterError
from cluster.launchers.ray_job import runner as runner_file
from cluster.launchers.ray_job.job_record import JobFolder, JobRecord, JobRequest
from cluster.launchers.ray_job.runner import HEAD_TIMEOUT_SECONDS, JobRunner
from cluster.ray.shares import ClusterSnapshot, Needs, NodeCapacity, SharingJob
from cluster.recipe import Recipe
from cluster.supervision.share_target import ShareTarget, share_file
from run_store import lease
from run_store.folder import RunFolder
from run_store.start import Claim, Invocation, StopOrder

NEEDS = Needs(ranks=2, bundle={"CPU": 1.0}, cpus_of_workers=0.0)


class Cluster:
    """Cluster whose only job is `mine`. Each query returns the next item of `free`, the free CPUs;
    the last item is repeated.
    """

    def __init__(self, free: Sequence[float] = (2.0,)) -> None:
        self.free = list(free)
        self.looks = 0
        self.stopped_job: str | None = None

    def snapshot(self) -> ClusterSnapshot:
        return ClusterSnapshot([SharingJob("mine", "run", 0.0, Claim(), NEEDS)], self.nodes())

    def stop_order(self, job_id: str) -> StopOrder | None:
        return StopOrder(by="ada@host", at=0.0) if job_id == self.stopped_job else None

    def nodes(self) -> list[NodeCapacity]:
        self.looks += 1
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        return [NodeCapacity({"CPU": free}, {"CPU": 2.0})]


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the runner's intervals, and restore the signal handlers that it replaces."""
    monkeypatch.setattr(runner_file, "QUEUE_SECONDS", 0.01)
    monkeypatch.setattr(runner_file, "POLL_SECONDS", 0.01)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run's folder, next to the lines of three steps that an attempt may add to the
    record.
    """
    (run := tmp_path / "run").mkdir()
    for step in (1, 2, 3):
        (tmp_path / f"line-{step}").write_text(train_line(step).to_json() + "\n")
    return run


def request(run: Path, **changes: Any) -> JobRequest:
    given: dict[str, Any] = {
        "name": "tiny.yaml",
        "recipe": "name: tiny\n",
        "overrides": (),
        "run": str(run),
        "folder": str(run.parent),
        "dataset": "/data",
        "needs": NEEDS,
        "retry_exit_codes": (75,),
        "retries": 2,
        "digest": "0" * 64,
    }
    return JobRequest(**given | changes)


def job(run: Path, script: str, cluster: Cluster | None = None, **changes: Any) -> JobRunner:
    """Return a job whose attempts run a shell script in the parent of the run's folder.

    Like `transloom train`, an attempt reads a request first, and exits if there is none.
    """
    JobFolder.of(run, "mine").path.mkdir(parents=True, exist_ok=True)
    view = cluster or Cluster()
    command = ["sh", "-c", f"IFS= read -r order || exit 75; cd '{run.parent}'; {script}"]
    return JobRunner("mine", request(run, **changes), ["train"], command, lambda: view)


def record(run: Path) -> JobRecord:
    return JobFolder.of(run, "mine").read()


def log(run: Path) -> str:
    return JobFolder.of(run, "mine").log.read_text()


@pytest.mark.parametrize(
    ("script", "code", "state", "attempts"),
    [
        ("exit 0", 0, "SUCCEEDED", 1),
        ("echo broken; exit 1", 1, "FAILED", 1),
        ("exit 2", 2, "FAILED", 1),
        ("kill -9 $$", 137, "FAILED", 1),
        ("exit 75", 75, "FAILED", 3),  # no progress: one attempt and two retries
        ("[ -e once ] || { touch once; exit 75; }", 0, "SUCCEEDED", 2),
    ],
)
def test_the_exit_code_of_an_attempt_decides_state_and_retries(
    script: str, code: int, state: str, attempts: int, run: Path
) -> None:
    assert job(run, script).run() == code
    kept = record(run)
    assert (kept.exit_code, kept.state, len(kept.attempts)) == (code, state, attempts)
    assert [attempt.exit_code for attempt in kept.attempts][-1] == code


@pytest.mark.parametrize(
    ("checkpoint", "remedy"),
    [
        ("step-00000002", r"continue from the newest checkpoint, \S+/step-00000002, run"),
        (None, "no checkpoint. To start the run over, .*jobs retry"),
    ],
)
def test_a_signal_that_killed_the_driver_is_named_with_a_remedy(
    checkpoint: str | None, remedy: str, run: Path
) -> None:
    if checkpoint:
        (run / "checkpoints" / checkpoint).mkdir(parents=True)
    script = "cat line-1 line-2 >> run/metrics.jsonl; echo 'step 2/20'; kill -9 $$"
    assert job(run, script).run() == 137
    kept = record(run)
    assert kept.message is not None
    assert "killed by SIGKILL (exit code 137" in kept.message
    assert "after step 2" in kept.message
    assert re.search(remedy, kept.message)
    assert "`transloom jobs retry mine`" in kept.message
    assert "Add 137 to cluster.retry_exit_codes" in kept.message
    assert kept.attempts[0].why == "killed by SIGKILL; the last line is: step 2/20"
    assert kept.message in log(run)


@pytest.mark.parametrize(("number", "code"), [(9, 137), (11, 139)])
def test_a_job_restarts_after_a_signal_if_the_recipe_says_so(
    number: int, code: int, run: Path
) -> None:
    values = tiny_values(Path("/data"))
    values["cluster"]["retry_exit_codes"] = [75, code]
    codes = Recipe.of(values).cluster.retry_exit_codes
    script = f"[ -e once ] || {{ touch once; kill -{number} $$; }}"
    assert job(run, script, retry_exit_codes=codes).run() == 0
    assert [attempt.exit_code for attempt in record(run).attempts] == [code, 0]


def test_an_attempt_gets_the_command_that_the_user_typed(run: Path) -> None:
    typed = Invocation(command="transloom submit tiny.yaml seed=2")
    assert job(run, 'printf %s "$order" > typed', invocation=typed).run() == 0
    told = json.loads((run.parent / "typed").read_text())["environment"]
    assert Invocation.model_validate_json(told["TRANSLOOM_INVOCATION"]) == typed


def test_the_request_sets_retried_exit_codes_and_the_number_of_retries(run: Path) -> None:
    assert job(run, "exit 9", retry_exit_codes=(8, 9), retries=1).run() == 9
    assert len(record(run).attempts) == 2
    assert job(run, "exit 75", retries=0).run() == 75
    assert len(record(run).attempts) == 1


def test_a_new_step_in_the_record_resets_the_number_of_retries(run: Path) -> None:
    """The job exits with 75 seven times; attempts 2 and 4 record a step."""
    script = """
    echo . >> count; n=$(wc -l < count)
    case $n in 2) cat line-1 >> run/metrics.jsonl;; 4) cat line-2 >> run/metrics.jsonl;; esac
    exit 75
    """
    assert job(run, script).run() == 75
    kept = record(run)
    assert [attempt.step for attempt in kept.attempts] == [0, 1, 1, 2, 2, 2, 2]
    assert kept.message is not None
    assert "3 attempts in a row got no further than step 2" in kept.message


def test_each_attempt_records_why_it_ended_and_its_lines_in_the_log(run: Path) -> None:
    script = "[ -e once ] && exec echo done; touch once; echo one; echo 'two: drained' >&2; exit 75"
    assert job(run, script).run() == 0
    first, second = record(run).attempts
    assert (first.why, first.exit_code) == ("two: drained", 75)
    lines = log(run).split("\n")
    assert lines[first.first_line - 1 : first.last_line] == ["one", "two: drained"]
    assert log(run)[second.first_byte :] == "done\n"
    assert record(run).restarts == 1


def test_a_job_waits_for_capacity_and_logs_what_it_needs(run: Path) -> None:
    cluster = Cluster(free=[0.0, 1.0, 1.0, 2.0])
    assert job(run, "exit 0", cluster).run() == 0
    assert cluster.looks == 4
    assert "WAITING for capacity: it needs 2 × (1 CPU); 0 CPU on 1 node are free" in log(run)
    assert record(run).waits_for is None


def test_a_job_that_waits_renews_its_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record's age is the job's heartbeat: a job with an old record counts as lost."""
    monkeypatch.setattr(runner_file, "RENEW_SECONDS", 0.0)
    record_file = JobFolder.of(run, "mine").record_file
    ages = []

    class Aging(Cluster):
        def nodes(self) -> list[NodeCapacity]:
            ages.append(record_file.stat().st_mtime)
            os.utime(record_file, (1, 1))
            return super().nodes()

    assert job(run, "exit 0", Aging(free=[0.0, 0.0, 0.0, 0.0, 2.0])).run() == 0
    assert len(ages) == 5
    assert all(written > 1 for written in ages), ages


def test_a_job_that_may_not_wait_fails_at_once_and_names_needed_and_free_cpus(run: Path) -> None:
    cluster = Cluster(free=[1.0])
    assert job(run, "touch started", cluster, wait=False).run() == 1
    assert cluster.looks == 1
    assert not (run.parent / "started").exists()
    message = record(run).message
    assert message is not None
    assert "it needs 2 × (1 CPU); 1 CPU on 1 node are free" in message
    assert "without --no-wait" in message


def test_a_job_asks_again_if_the_head_does_not_answer(run: Path) -> None:
    class Away(Cluster):
        def nodes(self) -> list[NodeCapacity]:
            if self.looks < 2:
                self.looks += 1
                raise ClusterError("no answer")
            return super().nodes()

    assert job(run, "exit 0", Away()).run() == 0


class SlowCluster(Cluster):
    """Cluster whose queries advance the runner's clock and sometimes get no answer."""

    SECONDS_A_LOOK = 50.0

    def __init__(self, free: Sequence[float], away: Callable[[int], bool]) -> None:
        """
        Args:
            away: returns whether the query with this number, from 0, gets no answer.
        """
        super().__init__(free)
        self.now = 0.0
        self._away = away

    def nodes(self) -> list[NodeCapacity]:
        self.now += self.SECONDS_A_LOOK
        if self._away(self.looks):
            self.looks += 1
            raise ClusterError("the head gives no answer")
        return super().nodes()

    def set_the_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def sleep(seconds: float) -> None:
            self.now += seconds

        clock = SimpleNamespace(time=time.time, monotonic=lambda: self.now, sleep=sleep)
        monkeypatch.setattr(runner_file, "time", clock)


def test_the_timeout_of_the_head_counts_from_its_last_answer(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head restarts after the job has waited for hours."""
    waited = math.ceil(2 * HEAD_TIMEOUT_SECONDS / SlowCluster.SECONDS_A_LOOK)
    cluster = SlowCluster([0.0] * waited + [2.0], lambda look: look == waited)
    cluster.set_the_clock(monkeypatch)
    assert job(run, "exit 0", cluster).run() == 0
    assert cluster.looks == waited + 2


def test_a_head_that_never_answers_ends_the_job(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = math.ceil(2 * HEAD_TIMEOUT_SECONDS / SlowCluster.SECONDS_A_LOOK)
    cluster = SlowCluster([2.0], lambda look: look < enough)
    cluster.set_the_clock(monkeypatch)
    assert job(run, "touch started", cluster).run() == 1
    assert cluster.now - HEAD_TIMEOUT_SECONDS <= 2 * SlowCluster.SECONDS_A_LOOK
    assert not (run.parent / "started").exists()
    kept = record(run)
    assert (kept.state, kept.message) == ("FAILED", "the head gives no answer")


def test_a_stop_request_in_the_run_s_folder_ends_the_job(run: Path) -> None:
    """The attempt takes the request, as a driver does, and exits with 75; no attempt follows."""
    RunFolder(run).ask_to_stop()  # an old request, which does not apply to this job
    script = "rm run/control/stop; touch run/control/stop.taken; exit 75"
    assert job(run, script).run() == 75
    kept = record(run)
    assert (kept.state, len(kept.attempts)) == ("STOPPED", 1)


def test_a_stop_request_from_before_the_job_does_not_stop_it(run: Path) -> None:
    folder = RunFolder(run)
    folder.ask_to_stop()
    assert job(run, "mv run/control/stop run/control/stop.taken; exit 75").run() == 75
    assert record(run).state == "FAILED"
    assert len(record(run).attempts) == 3


def test_a_stop_request_ends_a_waiting_job_before_its_first_attempt(run: Path) -> None:
    class Asks(Cluster):
        def nodes(self) -> list[NodeCapacity]:
            RunFolder(run).ask_to_stop()
            return super().nodes()

    assert job(run, "touch started", Asks(free=[0.0])).run() == 75
    assert record(run).state == "STOPPED"
    assert record(run).attempts == ()
    assert not (run.parent / "started").exists()


def own_the_run() -> str:
    """Return shell commands that take the run's lease."""
    card = lease.this_process() | {"process": "PID"}
    written = json.dumps(card).replace('"PID"', "%d")
    return f"mkdir -p run/owners; printf '{written}' $$ > run/owners/00000001.json"


@pytest.mark.parametrize("owns", [True, False])
def test_a_job_records_whether_it_has_owned_its_run(owns: bool, run: Path) -> None:
    assert job(run, f"{own_the_run() if owns else ':'}; exit 1").run() == 1
    assert record(run).has_owned_run is owns


def test_a_signal_does_not_stop_the_driver_of_another_job(run: Path) -> None:
    """The attempt ends without owning the run, many polls of the runner after the signal."""
    (run / "control").mkdir()
    assert job(run, "kill -TERM $PPID; sleep 0.2; exit 1").run() == 1
    assert record(run).state == "STOPPED"
    assert RunFolder(run).stop_requests() == set()


RUNNER = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from test_runner import job
sys.exit(job(Path(sys.argv[1]), sys.argv[4]).run())
"""


def test_a_signal_to_the_runner_reaches_the_attempt_only_as_a_file(run: Path) -> None:
    """The attempt prints `signalled` if it gets a signal, and waits for the request file twice."""
    script = (
        f"trap 'echo signalled' TERM; {own_the_run()}; touch started; "
        "for look in 1 2; do until [ -e run/control/stop ]; do sleep 0.05; done; "
        "rm run/control/stop; done; echo asked; exit 75"
    )
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, run, here, here.parents[2], script],
        cwd=Path(__file__).parents[4],
        stdout=subprocess.PIPE,
    )
    wait_until(lambda: (run.parent / "started").exists())
    process.terminate()
    said, _ = process.communicate()
    assert process.returncode == 75
    assert said.decode().strip() == "asked"
    assert record(run).state == "STOPPED"
    assert record(run).message == "SIGTERM was received"
    assert not RunFolder(run).stop_request.exists()


def test_the_message_of_a_signal_names_the_user_who_stopped_the_job(run: Path) -> None:
    (cluster := Cluster()).stopped_job = "mine"
    assert job(run, "kill -TERM $PPID; sleep 0.2; exit 1", cluster).run() == 1
    assert record(run).message == "ada@host stopped the run at 1970-01-01 00:00:00 UTC"


def test_the_target_number_of_ranks_is_written_for_the_driver_and_recorded(run: Path) -> None:
    file = share_file(run, "mine")
    assert job(run, f"cat {file}; sleep 0.1").run() == 0
    assert '"ranks":2' in log(run)
    assert record(run).ranks == 0
    assert record(run).share == ShareTarget.from_json(file.read_bytes())
