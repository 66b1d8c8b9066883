"""The ranks as Ray actors in a placement group, behind a small interface.

`RankGroup` starts one actor per rank, trains with all of them, and passes on what they report.
A rank trains in one thread of its actor; another one answers the supervisor's polls, which is
also how the supervisor learns that a rank has died.
"""

import os
import secrets
import socket
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import ClusterConfig
from cluster.data_workers import WorkerHandle
from cluster.errors import ClusterError, RankLostError
from cluster.mailbox import Mailbox, Report
from cluster.worker_streams import WorkerClient, WorkerStreams
from data_pipeline.errors import DataError
from model.errors import ModelError
from trainer.assignment import Assignment
from trainer.distributed import Placement, process_group
from trainer.errors import TrainerError
from trainer.supervision import Outcome, Phase

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
PLACEMENT_TIMEOUT_SECONDS = 60.0
FAILURE_GRACE_SECONDS = 2.0
# The kinds of error that are a cause rather than a consequence, most telling first.
CAUSES = (RankLostError, ClusterError, DataError, ModelError, TrainerError)


@dataclass(frozen=True)
class Poll:
    """What a group of ranks has done: reports, outcomes once all returned, or why it failed."""

    reports: list[Report]
    outcomes: list[Outcome] | None
    failure: Exception | None


@ray.remote(concurrency_groups={"control": 1}, max_restarts=0)
class RankActor:
    """One rank: a process that trains, and a mailbox."""

    def __init__(self, rank: int) -> None:
        self._mailbox = Mailbox(rank)
        self._client = WorkerClient([], self._mailbox.notice)

    @ray.method(concurrency_group="control")
    def node(self) -> str:
        """The id of the node that this rank runs on."""
        node_id: str = ray.get_runtime_context().get_node_id()
        return node_id

    @ray.method(concurrency_group="control")
    def rendezvous(self, *, one_node: bool) -> str:
        """Where ranks may meet: a file if all are on this node, otherwise a free port of it."""
        if one_node:
            return f"file://{tempfile.gettempdir()}/transloom-rendezvous-{secrets.token_hex(8)}"
        address = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            return f"tcp://{address}:{probe.getsockname()[1]}"

    @ray.method(concurrency_group="control")
    def process_id(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def poll(self) -> list[Report]:
        """What the rank has reported since the last poll."""
        return self._mailbox.drain()

    @ray.method(concurrency_group="control")
    def request_stop(self) -> None:
        self._mailbox.request_stop()

    @ray.method(concurrency_group="control")
    def use_workers(self, workers: list[WorkerHandle]) -> None:
        """From now on these data workers are asked, and no others."""
        self._client.workers = workers

    def train(
        self,
        assignment: Assignment,
        placement: Placement,
        workers: list[WorkerHandle],
        config: ClusterConfig,
    ) -> Outcome:
        """Train from a checkpoint, or from step 0; returns the outcome."""
        with process_group(placement, COLLECTIVE_TIMEOUT):
            from trainer.build import (
                build_trainer,
            )  # imports DeepSpeed, which reads the environment

            self._client.workers = workers
            streams = WorkerStreams(
                self._client,
                rank=placement.rank,
                ranks=placement.world_size,
                slots=assignment.recipe.batching.micro_batches_per_step,
                steps_ahead=config.steps_ahead,
                bytes_ahead=config.data_memory_bytes,
            )
            trainer = build_trainer(
                assignment,
                placement=placement,
                steps=streams.open,
                supervision=self._mailbox,
            )
            with trainer:
                return trainer.train()


class RankGroup:
    """The ranks of one attempt at a run."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        bundle = {"CPU": config.cpus_per_rank, "GPU": float(config.gpus_per_rank)}
        self._placement_group = placement_group(
            [{name: amount for name, amount in bundle.items() if amount}] * config.max_ranks,
            strategy="PACK",
        )
        if not self._placement_group.wait(PLACEMENT_TIMEOUT_SECONDS):
            remove_placement_group(self._placement_group)
            raise ClusterError(
                f"The cluster could not place {config.max_ranks} ranks of "
                f"{config.cpus_per_rank} CPUs and {config.gpus_per_rank} GPUs within "
                f"{PLACEMENT_TIMEOUT_SECONDS:.0f} s: they are in use. Wait for other jobs "
                "to end, or lower cluster.ranks"
            )
        self.actors = [
            RankActor.options(  # type: ignore[attr-defined]
                num_cpus=config.cpus_per_rank,
                num_gpus=config.gpus_per_rank,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._placement_group, placement_group_bundle_index=rank
                ),
            ).remote(rank)
            for rank in range(config.max_ranks)
        ]
        self._results: list[Any] = []
        self._progress: dict[int, tuple[Phase, int, str]] = {}

    def start(self, assignment: Assignment, workers: list[WorkerHandle]) -> None:
        """Let all ranks train; returns at once."""
        self._results = [
            actor.train.remote(assignment, placement, workers, self._config)
            for actor, placement in zip(self.actors, self._placements(), strict=True)
        ]

    def poll(self) -> Poll:
        """What has happened since the last poll."""
        failure = self._failure()
        reports = [report for actor in self.actors for report in self._reports_of(actor)]
        for report in reports:
            if report.progress:
                self._progress[report.rank] = report.progress
        if failure:
            return Poll(reports, None, failure)
        _, running = ray.wait(self._results, num_returns=len(self._results), timeout=0)
        if running:
            return Poll(reports, None, None)
        outcomes: list[Outcome] = ray.get(self._results)
        return Poll(reports + [r for a in self.actors for r in self._reports_of(a)], outcomes, None)

    def use_workers(self, workers: list[WorkerHandle]) -> None:
        """Let every rank ask these data workers."""
        for actor in self.actors:
            actor.use_workers.remote(workers)

    def request_stop(self) -> None:
        """Ask every rank to checkpoint at the next step boundary and leave."""
        for actor in self.actors:
            actor.request_stop.remote()

    def shutdown(self) -> None:
        """Kill all ranks and give their resources back."""
        for actor in self.actors:
            ray.kill(actor)
        remove_placement_group(self._placement_group)

    def _failure(self) -> Exception | None:
        """Why the group cannot go on, if so.

        When one rank fails, the others fail a moment later in the collective that it left. So that
        moment is waited for, and the cause is chosen: a rank's death, else an error of our own,
        else whatever came first.
        """
        if not self._errors(timeout_seconds=0.0):
            return None
        errors = self._errors(timeout_seconds=FAILURE_GRACE_SECONDS)
        return max(errors, key=lambda error: [isinstance(error, kind) for kind in CAUSES])

    def _errors(self, timeout_seconds: float) -> list[Exception]:
        """What ranks have raised, in the order of ranks."""
        finished, _ = ray.wait(
            self._results, num_returns=len(self._results), timeout=timeout_seconds
        )
        errors: list[Exception] = []
        for result in finished:
            try:
                ray.get(result)
            except RayTaskError as error:
                errors.append(error.cause)
            except RayActorError as error:
                rank = self._results.index(result)
                phase, step, _ = self._progress.get(rank, ("start", 0, ""))
                reason = str(error).splitlines()[0]
                errors.append(
                    RankLostError(
                        f"Rank {rank} has died in phase {phase!r} of step {step}: {reason}"
                    )
                )
        return errors

    @staticmethod
    def _reports_of(actor: Any) -> list[Report]:
        """A rank's reports; none if it is dead, of which its result tells."""
        try:
            reports: list[Report] = ray.get(actor.poll.remote())
        except RayActorError:
            return []
        return reports

    def _placements(self) -> list[Placement]:
        """Where each rank runs; rank 0's node hosts the rendezvous."""
        try:
            nodes = ray.get([actor.node.remote() for actor in self.actors])
            ranks_of = Counter(nodes)
            rendezvous = ray.get(self.actors[0].rendezvous.remote(one_node=len(ranks_of) == 1))
        except RayActorError as error:
            raise RankLostError(f"A rank has died at start: {error}") from error
        return [
            Placement(
                rank=rank,
                world_size=len(nodes),
                local_world_size=ranks_of[node],
                device="cuda" if self._config.gpus_per_rank else "cpu",
                threads=self._config.threads_per_rank,
                rendezvous=rendezvous,
            )
            for rank, node in enumerate(nodes)
        ]
