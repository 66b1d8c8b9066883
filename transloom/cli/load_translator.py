"""Load the translators of runs, with the decoding that a command line asks for."""

from collections.abc import Sequence
from pathlib import Path

from cluster.terminal import warn
from foundation.wording import listed
from model.config.transformer import DecodingConfig
from trainer.errors import EngineError, RunMismatchError
from trainer.recipe import DEFAULT_TASK
from trainer.runs.folder import RunFolder
from transloom.inference.engine_names import ComputeType, Engine
from transloom.inference.engines import require_possible
from transloom.inference.trained_network import Precision
from transloom.inference.translator import Translator


def named_run(name: str) -> tuple[Path, str | None]:
    """A run's folder, and the checkpoint that RUN@CHECKPOINT names."""
    path, at, checkpoint = name.rpartition("@")
    if at and not Path(name).exists():
        return Path(path), checkpoint
    return Path(name), None


def load_together(
    names: Sequence[str],
    checkpoint: str | None,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    n_best: int = 1,
    precision: Precision = "fp32",
    engine: Engine = Engine.TORCH,
    compute_type: ComputeType | None = None,
) -> Translator:
    """Load the translator of one run, or of several that translate together.

    Args:
        names: each RUN or RUN@CHECKPOINT, a step or the name of an average.
        checkpoint: of one run alone.
        engine, compute_type: as in `Translator.load`; several runs need torch.

    Raises:
        RunMismatchError: a checkpoint for several runs, or what `Translator.load_ensemble` raises.
        EngineError: another engine than torch for several runs, or what `Translator.load` raises.
    """
    if checkpoint is not None and (len(names) > 1 or named_run(names[0])[1] is not None):
        raise RunMismatchError(
            f"--checkpoint {checkpoint} does not say of which of {listed(names)}: name checkpoints "
            "as RUN@STEP, without --checkpoint"
        )
    if len(names) == 1:
        run, named_checkpoint = named_run(names[0])
        return load_translator(
            run,
            checkpoint or named_checkpoint,
            beam_size,
            length_penalty,
            n_best,
            precision,
            engine,
            compute_type,
        )
    if engine is not Engine.TORCH:
        raise EngineError(
            f"{engine} searches with one run's probabilities, and {len(names)} runs are named: "
            "leave out --engine and --compute-type, or name one run"
        )
    require_possible(engine, compute_type, "cpu", precision)
    translator = Translator.load_ensemble([named_run(n) for n in names], precision=precision)
    for reason in translator.passed_over:
        warn(f"{reason}; using another checkpoint")
    translator.decoding = decoding_of(translator, beam_size, length_penalty, n_best)
    return translator


def load_translator(
    run: Path,
    checkpoint: str | None,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    n_best: int = 1,
    precision: Precision = "fp32",
    engine: Engine = Engine.TORCH,
    compute_type: ComputeType | None = None,
) -> Translator:
    """Load a run's translator, and warn if usual weights were passed over.

    Args:
        checkpoint: a step or the name of an average.
        engine, compute_type: as in `Translator.load`.
    """
    translator = Translator.load(
        run, checkpoint, precision=precision, engine=engine, compute_type=compute_type
    )
    for reason in translator.passed_over:
        warn(f"{reason}; using {translator.checkpoint.path}")
    translator.decoding = decoding_of(translator, beam_size, length_penalty, n_best)
    return translator


def decoding_of(
    translator: Translator, beam_size: int | None, length_penalty: float | None, n_best: int
) -> DecodingConfig:
    """The run's decoding with what the command line changes; the beam is at least `n_best` wide."""
    decoding = translator.decoding
    width = max(decoding.beam_size if beam_size is None else beam_size, n_best)
    alpha = decoding.length_penalty if length_penalty is None else length_penalty
    return decoding.model_copy(update={"beam_size": width, "length_penalty": alpha})


def task_of(run: Path) -> str:
    """What a run learns.

    Raises:
        RunMismatchError: there is no run.
    """
    return str(RunFolder(run).card().identity.get("task", DEFAULT_TASK))
