"""Jobs of two owners share a cluster of four ranks, and each curve is that of one rank."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cluster.processes import wait_until
from support.command import transloom

from cluster.launchers.ray_job.job_record import JobFolder, JobRecord
from run_store.record.metrics_file import train_lines
from run_store.record.run_status import run_status_of

EXACT = "engine.numerics=exact"
ENDLESS = "trainer.max_steps=100000"


class Job:
    """Submitted job with 1 to 4 ranks of one CPU each."""

    def __init__(self, runs: Any, address: str, name: str, owner: str, *words: str) -> None:
        self.runs, self.name, self.owner, self.address = runs, name, owner, address
        self.folder: Path = runs.folder / name
        ranks = ["cluster.ranks={min: 1, max: 4}", "cluster.cpus_per_rank=1", EXACT]
        options = ["--run", str(self.folder), "--owner", owner, *words]
        self.id = json.loads(self.ask("submit", str(runs.recipe), *ranks, *options))["job"]

    def ask(self, *words: str, code: int = 0) -> str:
        """Return the output of a command, or its error message if the command must fail."""
        options = ["--address", self.address, "--json"]
        done = transloom(*words, *options, cwd=self.runs.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    @property
    def record(self) -> JobRecord:
        wait_until(JobFolder.of(self.folder, self.id).record_file.exists)
        return JobFolder.of(self.folder, self.id).read()

    def trains_on(self, ranks: int) -> bool:
        if not (self.folder / "metrics.jsonl").exists():
            return False
        lines = [line.world_size for line in train_lines(self.folder / "metrics.jsonl")]
        return lines[-1:] == [ranks] and self.record.ranks == ranks

    def stop(self, *words: str, code: int = 0) -> str:
        return self.ask("jobs", "stop", self.id, *words, code=code)


@pytest.mark.chaos
def test_jobs_of_two_owners_and_an_urgent_job_share_ranks_without_changing_a_bit(
    runs: Any, ray_head: Any
) -> None:
    wait_until(ray_head.is_alone)
    address = ray_head.dashboard
    first = Job(runs, address, "first", "ada", ENDLESS, "cluster.price_per_rank_hour=2")
    wait_until(lambda: first.trains_on(4))
    second = Job(runs, address, "second", "bob", ENDLESS, "--priority", "50")
    wait_until(lambda: first.trains_on(2) and second.trains_on(2))
    assert second.id in str(first.record.share)  # the job that got ranks of the first
    listed = {job["id"]: job for job in json.loads(first.ask("jobs", "list"))}
    assert [listed[job.id]["owner"] for job in (first, second)] == ["ada", "bob"]
    assert [listed[job.id]["share"]["ranks"] for job in (first, second)] == [2, 2]

    # An urgent job starts on the full cluster, and the other jobs shrink to their fewest ranks.
    urgent = Job(runs, address, "urgent", "ada", "trainer.max_steps=40", "--priority", "90")
    wait_until(lambda: first.trains_on(1) and second.trains_on(1))
    wait_until(lambda: urgent.record.state == "SUCCEEDED")
    assert max(line.world_size for line in train_lines(urgent.folder / "metrics.jsonl")) == 2
    wait_until(lambda: first.trains_on(2) and second.trains_on(2))
    assert urgent.id in str(first.record.share)

    # Another user's job can be stopped in its owner's name, and its ranks are taken.
    assert f"{second.id} is a job of bob" in second.stop(code=1)
    second.stop("--owner", "bob")
    assert " stopped the run at " in str(second.record.message)
    assert " stopped the run at " in second.folder.joinpath("log.txt").read_text()
    status = run_status_of(second.folder)
    assert (status.state, status.reason) == ("stopped", second.record.message)
    wait_until(lambda: first.trains_on(4))
    first.stop("--owner", "ada")
    status = run_status_of(first.folder)
    assert (status.job_owner, status.priority) == ("ada", 50)
    assert status.cost == pytest.approx(2 * status.rank_hours)

    resized = runs.lines("first", "event")
    sizes = [e["to_ranks"] for e in resized if e["event"] == "resized"]
    assert sizes[:2] == [2, 1]
    assert sizes[-1] == 4
    assert all(e["promise"].startswith("same data, and the same losses and weights to the last bit")
               for e in resized if e["event"] == "resized")  # fmt: skip
    assert {e["lost_steps"] for e in resized if e["event"] == "resumed"} == {0}
    steps = max(len(runs.curve(job.name)) for job in (first, second, urgent))
    runs.train("solo", EXACT, f"trainer.max_steps={steps}", inline=True)
    for job in (first, second, urgent):
        trained = len(runs.curve(job.name))
        assert runs.curve(job.name) == runs.curve("solo")[:trained]
        assert runs.digests(job.name) == runs.digests("solo")[:trained]
