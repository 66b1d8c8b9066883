"""The supervisor of a run: the driver process.

It checks that recipe, dataset and run belong together, finds the newest intact checkpoint, starts
data workers and ranks, commits the checkpoints that the ranks write, and starts the ranks again
from the newest checkpoint when one of them dies.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from cluster.data_workers import start_data_workers
from cluster.errors import RankLostError
from cluster.ranks import RankGroup
from cluster.recipe import Recipe
from cluster.session import ray_session, require_resources
from data_pipeline.errors import DatasetError
from data_pipeline.manifest import Manifest
from data_pipeline.window import WindowReader
from trainer.checkpoint import Checkpoint, discard_partial, newest_intact, set_aside
from trainer.errors import CheckpointError, RunMismatchError
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


def prepare_run(recipe: Recipe, run: RunFolder, command: str) -> None:
    """Check that the dataset is the recipe's and the run the dataset's.

    Raises:
        DatasetError: there is no dataset, or it was prepared from other settings.
        RunMismatchError: the run has another identity, dataset or checkpoint.
        BatchingError: the dataset's longest pair exceeds the budget.
    """
    dataset = Path(recipe.data.dataset)
    manifest = Manifest.load(dataset)
    differences = manifest.differences(recipe.data, recipe.tokenizer)
    if differences:
        raise DatasetError(
            f"The dataset in {dataset} was prepared from other settings: "
            f"{'; '.join(differences)}. Prepare it again with --overwrite, or set data.dataset to "
            "another folder"
        )
    WindowReader(dataset, recipe.batching, recipe.seed)
    run.open(recipe, manifest, command)


def newest_checkpoint(run: RunFolder, audience: Audience) -> Checkpoint | None:
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
        _check_membership(checkpoint, run.card())
    return checkpoint


def _check_membership(checkpoint: Checkpoint, card: RunCard) -> None:
    header = checkpoint.header
    differences = identity_differences(header.identity, card.identity)
    if header.dataset_identity != card.dataset_identity:
        differences.append(
            f"manifest of the dataset: {header.dataset_identity[:16]}… in the checkpoint, "
            f"{card.dataset_identity[:16]}… in the run"
        )
    if differences:
        raise RunMismatchError(
            f"{checkpoint.path} belongs to another run, move it back there: "
            f"{'; '.join(differences)}"
        )


def supervise(recipe: Recipe, run: RunFolder, audience: Audience) -> Outcome:
    """Train a run under Ray until it is finished or asked to stop."""
    config = recipe.cluster
    with ray_session(config.address), stop_requests() as stop_requested:
        require_resources(
            cpus=config.ranks * config.cpus_per_rank
            + config.data_workers * config.cpus_per_data_worker,
            gpus=config.ranks * config.gpus_per_rank,
        )
        workers = start_data_workers(
            config.data_workers,
            dataset=Path(recipe.data.dataset),
            dataset_identity=run.card().dataset_identity,
            batching=recipe.batching,
            seed=recipe.seed,
            cpus=config.cpus_per_data_worker,
        )
        return _attempts(recipe, run, workers, audience, stop_requested)


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


def _attempts(
    recipe: Recipe,
    run: RunFolder,
    workers: list[Any],
    audience: Audience,
    stop_requested: Callable[[], bool],
) -> Outcome:
    """Start the ranks again after a loss, as long as the run gets further."""
    fruitless = 0
    while not stop_requested():
        discard_partial(run.checkpoints)
        checkpoint = newest_checkpoint(run, audience)
        start = checkpoint.step if checkpoint else 0
        audience.notice(
            f"starting {recipe.cluster.ranks} ranks"
            + (f" from the checkpoint of step {start}" if checkpoint else "")
        )
        committer = CheckpointCommitter(run.checkpoints, recipe.checkpoints, recipe.cluster.ranks)
        try:
            return _attempt(recipe, run, workers, checkpoint, committer, audience, stop_requested)
        except RankLostError as error:
            fruitless = 0 if committer.newest_step > start else fruitless + 1
            if fruitless == ATTEMPTS_WITHOUT_PROGRESS:
                raise
            audience.notice(f"{error}")
    return "preempted"  # what is done since the newest checkpoint will be repeated


def _attempt(
    recipe: Recipe,
    run: RunFolder,
    workers: list[Any],
    checkpoint: Checkpoint | None,
    committer: CheckpointCommitter,
    audience: Audience,
    stop_requested: Callable[[], bool],
) -> Outcome:
    group = RankGroup(recipe.cluster)
    try:
        group.start(
            recipe.training(),
            run.path.absolute(),
            workers,
            checkpoint.path.absolute() if checkpoint else None,
            committer.attempt,
        )
        stopping = False
        while True:
            poll = group.poll()
            for report in poll.reports:
                if report.line:
                    audience.line(report.line)
                if report.state and committer.add(*report.state):
                    audience.notice(f"checkpoint of step {report.state[1].step} is complete")
            if poll.failure:
                raise poll.failure
            if poll.outcomes is not None:
                assert len(set(poll.outcomes)) == 1, poll.outcomes
                return poll.outcomes[0]
            if stop_requested() and not stopping:
                stopping = True
                group.request_stop()
                audience.notice("asked to stop: the run leaves after a checkpoint")
            time.sleep(POLL_SECONDS)
    finally:
        group.shutdown()
