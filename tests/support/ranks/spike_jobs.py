"""Jobs for a `RankPool` that train a real run, and jobs with a step that the engine refuses."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep, local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from run_store.checkpoints.checkpoint import Checkpoint
from support.ranks.engine_jobs import (
    LEARNING_RATE,
    Shape,
    accumulate,
    finish_run,
    make_engine,
    make_model,
    train_steps,
    train_without_the_second_step,
)
from support.ranks.rank_jobs import make_job
from support.records.checkpoints import Listener, work_folder
from trainer.assembly.run import build_rank
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.replay.step_inspector import GradientSums
from trainer.training.loop import Trainer

train_without_the_step = train_without_the_second_step


class Supervisor(Listener):
    """Supervision without requests."""

    def progress(self, phase: str, step: int, where: str = "") -> None:
        """No supervisor waits for this rank."""

    def log_detail(self, text: str) -> None:
        """The run has no log."""

    def line(self, line: object) -> None:
        """The run has no display."""

    def stop_requested(self) -> bool:
        return False


class DiedError(Exception):
    """Raised in a rank when it requests data."""


def local_rank(
    placement: Placement,
    recipe: TrainingRecipe,
    run: Path,
    supervisor: Supervisor,
    before_step: Callable[[int], None],
    checkpoint: Path | None = None,
) -> AbstractContextManager[Trainer]:
    """Build a rank that reads its data itself.

    before_step: called with each step before the rank gets its data.
    checkpoint: checkpoint from which the run continues.
    """
    store, manifest = open_dataset(recipe.data)
    reader = WindowReader(store, manifest, recipe.data_settings)
    header = Checkpoint(checkpoint).header if checkpoint else None
    slots = recipe.batching.micro_batches_per_step

    def steps(cursor: Cursor) -> Iterator[RankStep]:
        read = local_rank_steps(reader, cursor, placement.rank, placement.world_size, slots)
        for step, data in enumerate(read, header.step + 1 if header else 1):
            before_step(step)
            yield data

    job = make_job(
        recipe,
        run,
        manifest=manifest.header(),
        checkpoint=checkpoint,
        cursor=Cursor.from_json(header.cursor) if header else Cursor(),
        work=work_folder(run / "checkpoints"),
    )
    return build_rank(job, placement=placement, steps=steps, supervision=supervisor)


def train_run(
    placement: Placement,
    recipe: TrainingRecipe,
    run: Path,
    checkpoint: Path | None = None,
    dies_in: int | None = None,
) -> Any:
    """Train a run from a checkpoint on; return the files of its checkpoints, and the notices.

    dies_in: the step in which all ranks die.
    """

    def die(step: int) -> None:
        if step == dies_in:
            raise DiedError

    supervisor = Supervisor()
    try:
        with local_rank(placement, recipe, run, supervisor, die, checkpoint) as trainer:
            trainer.train()
        assert dies_in is None
    except DiedError:
        pass
    return supervisor.written, supervisor.notices


def norms_of_steps(placement: Placement, shape: Shape, steps: int) -> list[tuple[float, ...]]:
    """Return each step's gradient norm, computed in different ways.

    On rank 0, the first is computed from the sums of observed gradients. The others are returned by
    `step`, with and without computing `gradient_norm` before it.
    """
    observed: list[float] = []
    found = [observed]
    for known in (True, False):
        engine = make_engine(placement, shape)
        norms = []
        for step in range(1, steps + 1):
            sums = GradientSums(engine.slots_per_rank)
            with engine.observe_gradients(sums.add):
                report, _ = accumulate(engine, step)
                while engine.refit(report.amax) is not None:
                    report, _ = accumulate(engine, step)
            if known:
                squares = sums.squares(engine.trained, placement)
                observed.append(math.fsum(each or math.nan for each in squares.values()) ** 0.5)
            norm = engine.gradient_norm(report.amax) if known else None
            norms.append(engine.step(LEARNING_RATE, report.amax, norm))
            assert norm in (None, norms[-1])
        engine.destroy()
        found.append(norms)
    return list(zip(*found, strict=True))


def train_past_refused_step(placement: Placement, shape: Shape, factor: float) -> dict[str, Any]:
    """Train steps 1 to 4; the second has gradients multiplied by `factor`, and is refused."""
    model = make_model()
    grows = [False]
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient * factor if grows[0] else gradient)
    engine = make_engine(placement, shape, model=model)
    losses = train_steps(engine, 1, 1)
    peaks = engine.grids.peaks if engine.grids else {}
    grows[0] = True
    report, _ = accumulate(engine, 2)
    widened = []
    while (outgrown := engine.refit(report.amax)) is not None:
        widened += outgrown
        report, _ = accumulate(engine, 2)
    norm = engine.gradient_norm(report.amax)
    engine.discard_gradients()
    grows[0] = False
    assert peaks == (engine.grids.peaks if engine.grids else {})
    return {"norm": norm, "widened": len(widened), **finish_run(engine, losses)}
