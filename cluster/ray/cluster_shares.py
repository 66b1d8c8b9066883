"""Snapshot of the jobs and nodes of a cluster, from which shares are computed.

Ray's list of jobs has each job's claim, as metadata. Ray's tables of placement groups and actors
show the ranks that jobs hold, and the resources that programs outside the shares hold.
"""

from collections import Counter
from collections.abc import Callable

from cluster.ray import private
from cluster.ray.jobs import Job, list_jobs
from cluster.ray.shares import (
    CLAIM_KEY,
    NEEDS_KEY,
    RUN_KEY,
    ClusterSnapshot,
    Needs,
    NodeCapacity,
    SharingJob,
)
from run_store.start import Claim


def query_shares(dashboard: str, has_begun: Callable[[Job], bool]) -> ClusterSnapshot:
    """Return the current jobs and nodes of the cluster that this process queries.

    A job without a valid claim, such as one of an older version, counts as another program.

    Args:
        dashboard: URL of the dashboard.
        has_begun: returns whether a job without reserved ranks has begun nevertheless, because
            its ranks are about to start.

    Raises:
        ClusterError: the dashboard does not answer.
    """
    reserved = private.reserved_resources()
    held = Counter(one.submission for one in reserved if one.is_bundle)
    listed = [job for job in list_jobs(dashboard) if not job.finished]
    jobs = [
        found
        for job in listed
        if (found := sharing_job(job, held[job.id], bool(held[job.id]) or has_begun(job)))
    ]
    sharing = {job.id for job in jobs}
    others: dict[str, Counter[str]] = {}
    for one in reserved:
        if one.submission not in sharing:
            others.setdefault(one.node, Counter()).update(one.resources)
    free, leaving = private.free_resources(), private.draining_nodes()
    nodes = sorted(private.known_nodes(), key=lambda node: str(node["NodeID"]))
    return ClusterSnapshot(
        jobs,
        [
            NodeCapacity(
                free.get(node["NodeID"], {}),
                {
                    name: n - others.get(node["NodeID"], Counter())[name]
                    for name, n in node["Resources"].items()
                },
                node["Labels"],
            )
            for node in nodes
            if node["Alive"] and node["NodeID"] not in leaving
        ],
    )


def sharing_job(job: Job, held: int, begun: bool) -> SharingJob | None:
    """Return a job with the claim in its metadata; None without a valid claim.

    Any user of the cluster can write metadata.
    """
    try:
        claim = Claim.from_json(job.metadata[CLAIM_KEY].encode())
        needs = Needs.from_json(job.metadata[NEEDS_KEY].encode())
    except (KeyError, ValueError):
        return None
    run = job.metadata.get(RUN_KEY, job.id).rstrip("/")
    return SharingJob(job.id, run, job.started or 0.0, claim, needs, begun, held)
