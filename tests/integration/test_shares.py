"""Jobs of two owners on a cluster for four ranks: they share it, and each curve is that of one rank."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.cluster.processes import wait_until
from support.command import transloom

from cluster.launchers.ray_job.job_record import JobFolder, JobRecord
from trainer.record.metrics_file import train_lines

RANKS = ["cluster.ranks={min: 1, max: 4}", "cluster.cpus_per_rank=1", "engine.numerics=exact"]


class Team:
    """Jobs of several owners on one cluster."""

    def __init__(self, runs: Any, head: Any) -> None:
        self.runs, self.head = runs, head

    def ask(self, *words: object) -> Any:
        done = transloom(
            *map(str, words), "--address", self.head.dashboard, "--json", cwd=self.runs.folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def submit(self, name: str, owner: str, steps: int, *words: str) -> "TeamJob":
        run = self.runs.folder / name
        options = ["--run", run, "--owner", owner, *words]
        changes = [*RANKS, f"trainer.max_steps={steps}"]
        return TeamJob(run, self.ask("submit", self.runs.recipe, *changes, *options)["job"])


class TeamJob:
    """A submitted job."""

    def __init__(self, run: Path, job_id: str) -> None:
        self.run, self.id = run, job_id

    @property
    def record(self) -> JobRecord | None:
        file = JobFolder.of(self.run, self.id)
        return file.read() if file.record_file.exists() else None

    def is_at(self, state: str, ranks: int | None = None) -> bool:
        record = self.record
        return bool(record and record.state == state and ranks in (None, record.ranks))

    @property
    def sizes(self) -> list[int]:
        """The numbers of ranks that have trained, in their order."""
        sizes = [line.world_size for line in train_lines(self.run / "metrics.jsonl")]
        return [now for before, now in zip([0, *sizes], sizes, strict=False) if now != before]


@pytest.fixture
def team(runs: Any, ray_head: Any) -> Team:
    wait_until(ray_head.is_alone)
    return Team(runs, ray_head)


@pytest.mark.chaos
def test_three_runs_of_two_owners_share_four_ranks_and_lose_no_bit(team: Team) -> None:
    t0 = time.time()

    def say(text):
        print(f"{time.time() - t0:7.1f} {text}", flush=True)

    first = team.submit("first", "ada", 3000)
    say("submitted first")
    wait_until(lambda: first.is_at("RUNNING", 4))
    say("first has 4")
    second = team.submit("second", "bob", 600)
    say("submitted second")
    wait_until(lambda: second.record is not None)
    say(f"second {second.record.state} {second.record.waits_for}")
    wait_until(lambda: second.is_at("STARTING"))
    say(f"second starts {second.record.ranks}")
    wait_until(lambda: second.is_at("RUNNING"))
    say(
        f"second runs {second.record.ranks}, first {first.record.ranks} {first.record.share_reason}"
    )
    third = team.submit("third", "ada", 300)
    say("submitted third")
    wait_until(lambda: third.is_at("RUNNING"))
    say(
        f"third runs {third.record.ranks}, second {second.record.ranks} first {first.record.ranks} {first.record.share_reason}"
    )
    wait_until(lambda: third.is_at("SUCCEEDED"))
    say("third ends")
    print(json.dumps(team.ask("jobs", "list"), indent=1))
    wait_until(lambda: second.is_at("SUCCEEDED"))
    say("second ends")
    wait_until(lambda: first.is_at("SUCCEEDED"))
    say("first ends")
    for job in (first, second, third):
        print(job.sizes, job.record.ranks)
        print((job.run / "log.txt").read_text())
        for line in team.runs.lines(job.run.name, "event"):
            print(line)
