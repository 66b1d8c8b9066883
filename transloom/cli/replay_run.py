"""Work of `transloom replay`: train steps again, compare them with the record, and inspect them.

    plan ──▶ scratch folder: a separate run that starts from the run's checkpoint
         ──leg by leg, by the usual training loop──▶ its record, reports of ranks ──▶ ReplayReport

A leg is a range of steps with the same dataset manifest. The scratch folder has links to the
checkpoint's files. The replay only reads the original run.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cluster.data.trace import walk
from cluster.errors import ClusterError
from cluster.recipe import Recipe
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import DatasetFileError
from foundation.file_model import JsonLimits, parse_object
from foundation.location import Location, without_credentials
from foundation.terminal import Terminal, shown, step_counts
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.state_objects import PARTS
from run_store.folder import RunFolder, StepRange
from run_store.record.metrics_file import step_lines
from run_store.record.metrics_lines import Line, StepLine
from run_store.record.vitals import Vitals
from run_store.run_copies import register_copy
from trainer.job.rank_job import ReplayOptions
from trainer.replay.rank_reports import RankStateReport, RankStepReport
from trainer.replay.replay_report import ReplayReport
from trainer.start.model_folder import is_model_folder
from trainer.start.warm_start import warm_start_of
from transloom.cli.run_urls import existing_run
from transloom.observe.replay.inspected_steps import ExampleLocations, inspected_step
from transloom.observe.replay.replay_plan import Leg, ReplayPlan, plan_replay, recipe_of
from transloom.observe.replay.replay_verdict import ComparedState, UnreadableData, compare_replay

NEVER = 10**9
# Limits for the report of one rank on one step. The report has all examples of the rank's
# micro-batches, so its size is limited only by the rank's memory.
REPORT_LIMITS = JsonLimits(bytes=2_000_000_000, values=100_000_000)


@dataclass(frozen=True)
class ReplayRequest:
    """Options of a replay.

    Attributes:
        steps: steps to replay; None for all recorded steps, from which `worst` chooses one.
        overrides: overrides of execution fields.
        dataset: folder or URL of the dataset, if it has moved since training.
        scratch: parent of the scratch folder; None for the system's temporary folder.
    """

    steps: StepRange | None
    worst: bool = False
    look: bool = False
    ranks: int = 1
    address: str | None = None
    overrides: tuple[str, ...] = ()
    dataset: str | None = None
    scratch: Path | None = None

    @property
    def is_inline(self) -> bool:
        """True if the replay needs only one rank, which runs in this process."""
        return self.ranks == 1 and self.address is None


def replay(run: Path, request: ReplayRequest, console: Terminal) -> ReplayReport:
    """Train the steps again and compare them with the record.

    Raises:
        RunMismatchError, RunError, RecipeError: these steps cannot be replayed.
        ClusterError: the cluster lacks capacity for the ranks, or the replay was stopped.
    """
    folder = existing_run(run)
    recipe = recipe_of(folder, request.overrides, request.dataset, request.address, request.ranks)
    with _ReplayListener(console) as listener:
        plan = plan_replay(folder, recipe, request.steps, request.worst, listener.notice)
        if request.is_inline:
            require_device(plan.recipe)
        listener.notice(plan.announcement())
        listener.expect(plan.trained)
        with scratch_run(plan, request.scratch) as scratch:
            unreadable = _train(plan, request, scratch, listener)
            return _build_report(plan, request, scratch, unreadable)


def require_device(recipe: Recipe) -> None:
    """Check that this process has the device that the run's ranks compute on.

    Raises:
        ClusterError: the ranks need GPUs, and this machine has none.
    """
    import torch

    if recipe.cluster.gpus_per_rank and not torch.cuda.is_available():
        raise ClusterError(
            "The run's ranks compute on GPUs (cluster.gpus_per_rank is 1), but torch finds no "
            "GPU here: replay the run on a machine with a GPU, or on a cluster with --address"
        )


@contextmanager
def scratch_run(plan: ReplayPlan, where: Path | None) -> Iterator[RunFolder]:
    """Yield a temporary copy of the run in its state before the first replayed step."""
    with tempfile.TemporaryDirectory(prefix="transloom-replay-", dir=where) as name:
        scratch = RunFolder(Path(name).resolve() / "run")
        scratch.checkpoints.mkdir(parents=True)
        _reports(scratch).mkdir()
        if plan.start:
            shutil.copyfile(plan.run.card_path, scratch.card_path)
            # Link the files and not the folder, so that removing a file here cannot remove a file
            # of the run.
            linked = scratch.checkpoints / plan.start.path.name
            linked.mkdir()
            shutil.copyfile(plan.start.path / HEADER, linked / HEADER)
            if plan.run.url:  # the checkpoint's state files are in an object store
                register_copy(scratch.path, plan.run.url)
                shutil.copyfile(plan.start.path / PARTS, linked / PARTS)
            else:
                for file in plan.start.file_paths():
                    (linked / file.name).symlink_to(file.resolve())
        yield scratch


def _reports(scratch: RunFolder) -> Path:
    return scratch.path / "reports"


def _train(
    plan: ReplayPlan, request: ReplayRequest, scratch: RunFolder, listener: "_ReplayListener"
) -> UnreadableData | None:
    """Train all legs, and return the dataset error that ended the training early, or None.

    Raises:
        ClusterError: a user stopped the replay.
    """
    for leg in plan.legs:
        options = ReplayOptions(
            folder=_reports(scratch),
            looked_at=plan.steps if request.look else None,
            checkpoints=plan.checkpoints,
            goes_on=leg is not plan.legs[-1],
            url=plan.run.url,
        )
        try:
            manifest = Manifest.load(plan.store, leg.dataset_identity)
            recipe = _for_scratch(plan, leg, scratch, manifest)
            run = recipe, scratch, plan.store, manifest, listener
            if request.is_inline:
                from cluster.supervision.inline import train_inline

                outcome = train_inline(*run, None, options)
            else:
                from cluster.supervision.supervisor import SupervisionOptions, supervise

                outcome = supervise(*run, SupervisionOptions(replay=options))
        except DatasetFileError as error:
            return _unreadable(plan, error)
        if outcome != "finished":
            raise ClusterError(
                f"The replay of steps {plan.steps} was stopped, and its results are discarded. Run "
                "the same command again to start the replay over"
            )
    return None


def _for_scratch(plan: ReplayPlan, leg: Leg, scratch: RunFolder, manifest: Manifest) -> Recipe:
    """Return the run's recipe, changed to train one leg in the scratch folder.

    The recipe's training ends at the leg's last step. Validation, early stopping, checkpoints and
    W&B are turned off, because they do not affect the steps.
    """
    recipe = plan.recipe
    trainer: dict[str, object] = {
        "max_steps": leg.last,
        "validate_every_steps": NEVER,
        "early_stopping": None,
        "stop_after_skipped_steps": NEVER,
    }
    origin = recipe.trainer.init_from
    if plan.start is None and origin is not None and not is_model_folder(Path(origin)):
        # Without this change, the scratch run would start from the newest weights of `init_from`.
        # The original run's metadata names the weights from which that run started.
        parent = plan.run.card().parent
        warm_start = warm_start_of(recipe, scratch, manifest, parent)
        if warm_start is not None and parent is not None:
            source = warm_start.path.parents[1]
            trainer["init_from"] = Location(f"{source}@{parent.step}")
    checkpoints = {"every_steps": NEVER, "keep_last": NEVER}
    tracking = {"wandb": "disabled"}
    return recipe.with_values(trainer=trainer, checkpoints=checkpoints, tracking=tracking)


def _unreadable(plan: ReplayPlan, error: DatasetFileError) -> UnreadableData:
    """Find the step whose data cannot be read, by reading the data again.

    This step may be later than the step that was being trained, because ranks read data ahead.
    """
    step = plan.from_step
    try:
        for traced, _ in walk(
            plan.store, plan.recipe.data_settings, plan.data, plan.start_of_data, plan.steps.last
        ):
            step = traced
    except DatasetFileError as found:
        return UnreadableData(step + 1, str(found))
    raise error  # the data is readable now, so the disk or server failed only temporarily


def _build_report(
    plan: ReplayPlan, request: ReplayRequest, scratch: RunFolder, unreadable: UnreadableData | None
) -> ReplayReport:
    """Build the report: the comparison with the record, and the ranks' reports of each step."""
    lines = step_lines(scratch.metrics)
    fingerprints = plan.fingerprint_of, _numerics(scratch), plan.trained
    promise = plan.recorded.promise(*fingerprints)
    ranks_for_bits = plan.recorded.ranks_for_bits(*fingerprints)
    states = [_state(plan, scratch, step) for step in sorted(plan.checkpoints) if step in lines]
    places = ExampleLocations(plan.manifest, plan.recipe.batching.micro_batches_per_step)
    recorded = plan.recorded.lines
    asked = range(plan.steps.first, plan.steps.last + 1)
    return ReplayReport(
        run=str(plan.run.path),
        from_step=plan.steps.first,
        to_step=plan.steps.last,
        replayed_from=plan.from_step,
        steps_trained=len(lines),
        ranks=request.ranks,
        verdict=compare_replay(plan.recorded, lines, states, promise, unreadable, ranks_for_bits),
        steps=[
            inspected_step(
                lines[step], recorded.get(step), _read_rank_reports(scratch, step), places
            )
            for step in asked
            if step in lines
        ],
    )


def _numerics(scratch: RunFolder) -> dict[str, object]:
    """Return the numerics fingerprint of the replay, or {} if its ranks have not started."""
    path = ReplayOptions(_reports(scratch)).numerics_file
    return parse_object(path.read_bytes()) if path.exists() else {}


def _state(plan: ReplayPlan, scratch: RunFolder, step: int) -> ComparedState:
    parts = [
        RankStateReport.from_json(path.read_bytes(), REPORT_LIMITS)
        for path in sorted(_reports(scratch).glob(f"state-{step:08d}.*.json"))
    ]
    return ComparedState.of(step, parts, plan.parameters)


def _read_rank_reports(scratch: RunFolder, step: int) -> list[RankStepReport]:
    return [
        RankStepReport.from_json(path.read_bytes(), REPORT_LIMITS)
        for path in sorted(_reports(scratch).glob(f"look-{step:08d}.*.json"))
    ]


class _ReplayListener:
    """Listener of a replay that shows a progress bar and notices in the terminal."""

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._progress = step_counts(console)
        self._task = self._progress.add_task("finding a checkpoint", total=None)
        self._before = 0

    def __enter__(self) -> "_ReplayListener":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, steps: StepRange) -> None:
        self._before = steps.first - 1
        total = steps.last - self._before
        self._progress.update(self._task, description="training again", total=total)

    def notice(self, text: str) -> None:
        self._console.print(shown((f"· {without_credentials(text)}", "dim")), soft_wrap=True)

    def logging(self) -> AbstractContextManager[object]:
        """Do nothing, because a replay has no log."""
        return nullcontext()

    def log_detail(self, text: str) -> None:
        """Do nothing, because a replay has no log."""

    def line(self, line: Line) -> None:
        if isinstance(line, StepLine):
            self._progress.update(self._task, completed=line.step - self._before)

    def vitals(self, vitals: Vitals) -> None:
        """Do nothing, because the progress bar shows enough."""
