"""The supervisor of a run: the driver process.

It checks that recipe, dataset and run belong together, finds the newest intact checkpoint, starts
data workers and ranks, commits the checkpoints that the ranks write, and starts the ranks again
from the newest checkpoint when one of them dies.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from cluster.data_workers import DataWorkers, numbers
from cluster.errors import RankLostError
from cluster.mailbox import Report
from cluster.ranks import RankGroup
from cluster.recipe import Recipe
from cluster.session import ray_session, require_resources
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.dataset.store import DatasetStore
from data_pipeline.errors import DatasetError
from data_pipeline.feeding.window import open_mixture
from trainer.assignment import Assignment
from trainer.checkpoints.format import Checkpoint, newest_intact, set_aside
from trainer.checkpoints.lease import Lease
from trainer.errors import CheckpointError, RunMismatchError
from trainer.inheritance import inheritance_of
from trainer.metrics import Line
from trainer.recipe import identity_differences
from trainer.run_folder import RunCard, RunFolder
from trainer.supervision import CheckpointCommitter, Outcome

POLL_SECONDS = 0.1
ATTEMPTS_WITHOUT_PROGRESS = 3


class Audience(Protocol):
    """Whoever watches a run: a live display, plain lines, or a test."""

    def notice(self, text: str) -> None:
        """Something happened that a person would want to know."""

    def line(self, line: Line) -> None:
        """The run has recorded a line."""


def prepare_run(recipe: Recipe, run: RunFolder, command: str) -> tuple[DatasetStore, Manifest]:
    """The run's dataset, after checking that it is the recipe's and the run the dataset's.

    Raises:
        DatasetError: there is no dataset, or it was prepared from other settings.
        RunMismatchError: the run has another identity, dataset or checkpoint.
        BatchingError: the dataset's longest pair exceeds the budget.
    """
    store, manifest = open_dataset(recipe.data)
    differences = manifest.differences(recipe.data, recipe.tokenizer)
    if differences:
        raise DatasetError(
            f"The dataset in {store.location} was prepared from other settings: "
            f"{'; '.join(differences)}. Prepare it again with --overwrite, or set data.dataset to "
            "another folder"
        )
    open_mixture(manifest, recipe.data_settings)
    inheritance = inheritance_of(recipe, run, manifest)
    parent = inheritance.parent if inheritance else None
    run.open(recipe, store, manifest, command, parent)
    return store, manifest


def newest_checkpoint(run: RunFolder, manifest: Manifest, audience: Audience) -> Checkpoint | None:
    """Where the run goes on; damaged checkpoints are named and set aside.

    Raises:
        CheckpointError: all are damaged; starting from step 0 is not done unasked.
        RunMismatchError: the checkpoint is of another run.
    """
    checkpoint, damaged = newest_intact(run.checkpoints)
    if damaged and checkpoint is None:
        raise CheckpointError(
            f"No checkpoint of {run.path} is intact: {'; '.join(damaged.values())}. Restore one "
            f"from a copy, or remove {run.checkpoints} to train from step 0 again"
        )
    for path, problem in damaged.items():
        aside = set_aside(path)
        audience.notice(f"{problem}; it is now {aside.name}, and the one before it is used")
    if checkpoint:
        _check_membership(checkpoint, run.card(), manifest)
    return checkpoint


def _check_membership(checkpoint: Checkpoint, card: RunCard, manifest: Manifest) -> None:
    header = checkpoint.header
    differences = identity_differences(header.identity, card.identity)
    if not manifest.descends_from(header.dataset_identity):
        differences.append(
            f"manifest of the dataset: {header.dataset_identity[:16]}… in the checkpoint, "
            f"{manifest.identity[:16]}… in the dataset (if shards were quarantined in between "
            "and are not any more, put that manifest back)"
        )
    if differences:
        raise RunMismatchError(
            f"{checkpoint.path} belongs to another run or dataset, move it back there: "
            f"{'; '.join(differences)}"
        )


def supervise(recipe: Recipe, run: RunFolder, manifest: Manifest, audience: Audience) -> Outcome:
    """Train a run under Ray until it is finished or asked to stop."""
    config = recipe.cluster
    with (
        Lease(run.path, audience.notice) as lease,
        ray_session(config.address),
        stop_requests() as stop_requested,
    ):
        require_resources(
            cpus=config.max_ranks * config.cpus_per_rank
            + config.data_workers * config.cpus_per_data_worker,
            gpus=config.max_ranks * config.gpus_per_rank,
        )
        workers = DataWorkers(
            recipe.data_settings,
            manifest.identity,
            cpus=config.cpus_per_data_worker,
            cache_bytes=config.data_memory_bytes,
        )
        workers.start(config.data_workers)
        return _Attempts(recipe, run, manifest, lease, workers, audience, stop_requested).run()


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or SIGINT into a request; the second one interrupts."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Attempts:
    """Starts of the ranks, one after another, until the run is finished."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        manifest: Manifest,
        lease: Lease,
        workers: DataWorkers,
        audience: Audience,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._recipe = recipe
        self._run = run
        self._manifest = manifest
        self._lease = lease
        self._session_started = time.time()
        self._workers = workers
        self._audience = audience
        self._stop_requested = stop_requested

    def run(self) -> Outcome:
        """Start the ranks again after a loss, as long as the run gets further."""
        ranks = self._recipe.cluster.max_ranks
        fruitless = 0
        while not self._stop_requested():
            checkpoint = newest_checkpoint(self._run, self._manifest, self._audience)
            start = checkpoint.step if checkpoint else 0
            self._audience.notice(
                f"starting {ranks} ranks"
                + (f" from the checkpoint of step {start}" if checkpoint else "")
            )
            committer = CheckpointCommitter(
                self._lease, self._run.checkpoints, self._recipe.checkpoints, ranks
            )
            try:
                return self._attempt(checkpoint, committer)
            except RankLostError as error:
                fruitless = 0 if committer.newest_step > start else fruitless + 1
                if fruitless == ATTEMPTS_WITHOUT_PROGRESS:
                    raise
                self._audience.notice(f"{error}")
        return "preempted"  # what is done since the newest checkpoint will be repeated

    def _attempt(self, checkpoint: Checkpoint | None, committer: CheckpointCommitter) -> Outcome:
        self._workers.give_up_starting()
        group = RankGroup(self._recipe.cluster)
        try:
            group.start(
                Assignment(
                    recipe=self._recipe.training(),
                    run=self._run.path.absolute(),
                    dataset_identity=self._manifest.identity,
                    checkpoint=checkpoint.path.absolute() if checkpoint else None,
                    work=committer.work.absolute(),
                    attempt=committer.attempt,
                    session_started=self._session_started,
                    inheritance=inheritance_of(self._recipe, self._run, self._manifest),
                ),
                self._workers.handles,
            )
            stopping = False
            while True:
                poll = group.poll()
                for report in poll.reports:
                    self._hear(report, committer)
                if poll.failure:
                    raise poll.failure
                if poll.outcomes is not None:
                    assert len(set(poll.outcomes)) == 1, poll.outcomes
                    self._audience.notice(self._workers.spread())
                    return poll.outcomes[0]
                if self._stop_requested() and not stopping:
                    stopping = True
                    group.request_stop()
                    self._audience.notice("asked to stop: the run leaves after a checkpoint")
                self._scale_workers(group)
                time.sleep(POLL_SECONDS)
        finally:
            group.shutdown()

    def _hear(self, report: Report, committer: CheckpointCommitter) -> None:
        """Take note of what a rank says."""
        if report.line:
            self._audience.line(report.line)
        if report.notice:
            self._audience.notice(f"rank {report.rank}: {report.notice}")
        if report.failed:
            step, reason = report.failed
            if committer.give_up(step):
                self._audience.notice(f"rank {report.rank}: {reason}")
        if report.state and committer.add(*report.state):
            self._audience.notice(f"checkpoint of step {report.state[1].step} is complete")

    def _scale_workers(self, group: RankGroup) -> None:
        """Have as many data workers as the run's control file asks for, if there is one."""
        before = list(self._workers.handles)
        wanted = self._run.take_wanted_data_workers()
        if wanted is not None:
            self._audience.notice(self._workers.spread())
            self._audience.notice(
                f"{wanted} data workers are wanted, there are {len(self._workers.handles)}"
            )
            granted = self._workers.resize(wanted)
            if granted < wanted:
                self._audience.notice(f"there are CPUs for {granted} data workers only")
        self._workers.admit()
        if self._workers.handles != before:
            group.use_workers(self._workers.handles)
            self._audience.notice(f"data workers are now {numbers(self._workers.handles)}")
