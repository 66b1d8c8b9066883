"""Loading of translators, and of networks that read texts, with the options of a command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from foundation.tasks import DEFAULT_TASK
from foundation.terminal import warn
from foundation.wording import join_items
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from trainer.errors import EngineError
from trainer.recipe import TrainingRecipe
from transloom.cli.run_urls import named_run
from transloom.inference.decoding_options import OF_THE_RECIPE, DecodingOptions
from transloom.inference.engine_names import Engine, Precision
from transloom.inference.engines import require_possible
from transloom.inference.trained_network import TextReader
from transloom.inference.translator import Translator

R = TypeVar("R", bound=TextReader[Any])


def load_together(
    names: Sequence[str], checkpoint: str | None, options: DecodingOptions
) -> Translator:
    """Load the translator of one run, or of several runs as an ensemble.

    Args:
        names: names of the form RUN or RUN@CHECKPOINT, where CHECKPOINT is a step or the name of an
            average.
        checkpoint: allowed only for a single run that is named without @CHECKPOINT.
        options: for several runs, the engine must be torch.

    Raises:
        RunMismatchError: `checkpoint` is not allowed here; see also `Translator.load_ensemble`.
        EngineError: the engine for several runs is not torch; see also `Translator.load`.
    """
    members = [named_run(name) for name in names]
    if checkpoint is not None and (len(members) > 1 or members[0][1] is not None):
        raise RunMismatchError(
            f"--checkpoint {checkpoint} is ambiguous for {join_items(names)}: name "
            "checkpoints as RUN@STEP, without --checkpoint"
        )
    if len(members) == 1:
        run, named_checkpoint = members[0]
        return load_translator(run, checkpoint or named_checkpoint, options)
    if options.engine is not Engine.TORCH:
        raise EngineError(
            f"--engine {options.engine} supports only one run, but {len(names)} runs are named: "
            "leave out --engine and --compute-type, or name one run"
        )
    require_possible(options.engine, options.compute_type, "cpu", options.precision)
    translator = Translator.load_ensemble(members, precision=options.precision)
    for reason in translator.passed_over:
        warn(f"{reason}; using another checkpoint")
    translator.decoding = options.applied_to(translator.decoding)
    return translator


def load_translator(
    run: Path, checkpoint: str | None, options: DecodingOptions = OF_THE_RECIPE
) -> Translator:
    """Load a run's translator, and warn about each checkpoint that was skipped.

    Args:
        checkpoint: a step or the name of an average; None for the newest intact checkpoint.
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
    """Return the task of a run.

    Raises:
        RunMismatchError: the run does not exist.
    """
    return str(RunFolder(run).card().identity.get("task", DEFAULT_TASK))


def trained_recipe(checkpoint: Checkpoint, dataset: str | None) -> TrainingRecipe:
    """Return the recipe in a checkpoint.

    Args:
        dataset: folder or URL of the dataset; None for the location in the recipe.
    """
    recipe = TrainingRecipe.of_checkpoint(checkpoint.header.recipe, checkpoint.header.identity)
    return recipe if dataset is None else recipe.with_values(data={"dataset": dataset})


def load_reader(kind: type[R], run: Path, checkpoint: str | None, precision: Precision) -> R:
    """Load a run's network, and warn about each checkpoint that was skipped."""
    reader = kind.load(run, checkpoint, precision)
    for reason in reader.passed_over:
        warn(f"{reason}; using {reader.checkpoint.path}")
    return reader
