"""Records of jobs, made without a cluster."""

from pathlib import Path
from typing import Any

from cluster.launchers.ray_job.job_record import JobRecord, JobRequest, Runner
from cluster.ray.shares import Needs
from run_store.start import Claim


def a_record(run: Path, **changes: Any) -> JobRecord:
    request = JobRequest(
        name="tiny.yaml",
        recipe="name: tiny\n",
        overrides=("seed=2",),
        run=str(run),
        folder="/",
        dataset="/data",
        needs=Needs(ranks=1, bundle={"CPU": 1}, cpus_of_workers=0),
        claim=Claim(owner="ada", priority=70),
        retry_exit_codes=(75,),
        retries=3,
        digest="0" * 64,
    )
    given: dict[str, Any] = {
        "id": "mine",
        "request": request,
        "state": "RUNNING",
        "since": 1.0,
        "runner": Runner.of_this_process(),
    }
    return JobRecord(**given | changes)
