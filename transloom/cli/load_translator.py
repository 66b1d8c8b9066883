"""Load the translators of runs, with the decoding that a command line asks for."""

from collections.abc import Sequence
from pathlib import Path

from cluster.terminal import warn
from foundation.built_in_tasks import DEFAULT_TASK
from foundation.wording import join_items
from trainer.errors import EngineError, RunMismatchError
from trainer.runs.folder import RunFolder
from transloom.inference.decoding_options import OF_THE_RECIPE, DecodingOptions
from transloom.inference.engine_names import Engine
from transloom.inference.engines import require_possible
from transloom.inference.translator import Translator


def named_run(name: str) -> tuple[Path, str | None]:
    """A run's folder, and the checkpoint that RUN@CHECKPOINT names."""
    path, at, checkpoint = name.rpartition("@")
    if at and not Path(name).exists():
        return Path(path), checkpoint
    return Path(name), None


def load_together(
    names: Sequence[str], checkpoint: str | None, options: DecodingOptions
) -> Translator:
    """Load the translator of one run, or of several that translate together.

    Args:
        names: each RUN or RUN@CHECKPOINT, a step or the name of an average.
        checkpoint: of one run alone.
        options: several runs need the engine torch.

    Raises:
        RunMismatchError: a checkpoint for several runs, or what `Translator.load_ensemble` raises.
        EngineError: another engine than torch for several runs, or what `Translator.load` raises.
    """
    if checkpoint is not None and (len(names) > 1 or named_run(names[0])[1] is not None):
        raise RunMismatchError(
            f"--checkpoint {checkpoint} does not say of which of {join_items(names)}: name "
            "checkpoints as RUN@STEP, without --checkpoint"
        )
    if len(names) == 1:
        run, named_checkpoint = named_run(names[0])
        return load_translator(run, checkpoint or named_checkpoint, options)
    if options.engine is not Engine.TORCH:
        raise EngineError(
            f"{options.engine} searches with one run's probabilities, and {len(names)} runs are "
            "named: leave out --engine and --compute-type, or name one run"
        )
    require_possible(options.engine, options.compute_type, "cpu", options.precision)
    members = [named_run(name) for name in names]
    translator = Translator.load_ensemble(members, precision=options.precision)
    for reason in translator.passed_over:
        warn(f"{reason}; using another checkpoint")
    translator.decoding = options.applied_to(translator.decoding)
    return translator


def load_translator(
    run: Path, checkpoint: str | None, options: DecodingOptions = OF_THE_RECIPE
) -> Translator:
    """Load a run's translator, and warn if usual weights were passed over.

    Args:
        checkpoint: a step or the name of an average.
    """
    translator = Translator.load(
        run,
        checkpoint,
        precision=options.precision,
        engine=options.engine,
        compute_type=options.compute_type,
    )
    for reason in translator.passed_over:
        warn(f"{reason}; using {translator.checkpoint.path}")
    translator.decoding = options.applied_to(translator.decoding)
    return translator


def task_of(run: Path) -> str:
    """What a run learns.

    Raises:
        RunMismatchError: there is no run.
    """
    return str(RunFolder(run).card().identity.get("task", DEFAULT_TASK))
