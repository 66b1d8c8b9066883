"""`transloom evaluate` and `transloom explain`, and the translator that commands load."""

from collections.abc import Sequence
from pathlib import Path

from cluster.terminal import Terminal, percentages, warn
from data_pipeline.config.data import DataConfig
from foundation.wording import listed
from model.config.transformer import DecodingConfig, search_label
from trainer.errors import EngineError, RunMismatchError
from trainer.recipe import DEFAULT_TASK, TrainingRecipe
from trainer.runs.folder import RunFolder
from transloom.inference.engine_names import ComputeType, Engine
from transloom.inference.engines import require_possible
from transloom.inference.evaluation import MOSES_BLEU, Evaluation, evaluate
from transloom.inference.scoring import score_heldout
from transloom.inference.trained_network import Precision, load_network
from transloom.inference.translator import Translator
from transloom.observe.terminal.tables import AnswerTable, Column


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


def evaluate_sets(
    translator: Translator,
    run: Path,
    names: list[str] | None,
    dataset: str | None,
    console: Terminal,
    processes: int | None = None,
) -> list[Evaluation]:
    """Score a run of translation on its test sets, or on those that are named."""
    header = translator.checkpoint.header
    recipe = TrainingRecipe.of_checkpoint(header.recipe, header.identity)
    data, sets = _test_sets(recipe, run, names, dataset)
    evaluations = []
    with percentages(console) as progress:
        for name in sets:
            task = progress.add_task(name, total=None)
            evaluations.append(
                evaluate(
                    translator,
                    data,
                    name,
                    RunFolder(run).translations,
                    lambda done, total, task=task: progress.update(  # type: ignore[misc]
                        task, completed=done, total=total
                    ),
                    processes,
                )
            )
    return evaluations


def _test_sets(
    recipe: TrainingRecipe, run: Path, names: list[str] | None, dataset: str | None
) -> tuple[DataConfig, list[str]]:
    """Where a run's dataset is, and the names of its test sets that are wanted.

    The validation set is one of them only where it is named.
    """
    data = recipe.data
    if dataset is not None:
        data = data.model_copy(update={"dataset": dataset})
    known = list(data.tests)
    unknown = [name for name in names or [] if name not in (*known, "validation")]
    if unknown or not (names or known):
        raise RunMismatchError(
            f"{run} has no test set {', '.join(unknown) or 'at all'}: its recipe has "
            f"{', '.join(known) or 'none'} in data.tests; --set validation is there in any case"
        )
    return data, names or known


def task_of(run: Path) -> str:
    """What a run learns.

    Raises:
        RunMismatchError: there is no run.
    """
    return str(RunFolder(run).card().identity.get("task", DEFAULT_TASK))


def score_sets(
    run: Path, names: list[str] | None, checkpoint: str | None, dataset: str | None
) -> dict[str, dict[str, float | None]]:
    """Score a run of any task on its test sets: each score by name, by the set's name."""
    found = load_network(run, checkpoint, "cpu", "fp32")
    for reason in found.passed_over:
        warn(f"{reason}; using {found.checkpoint.path}")
    data, sets = _test_sets(found.recipe, run, names, dataset)
    return {
        name: {score: s.value for score, s in score_heldout(found, data, name).items()}
        for name in sets
    }


def plain_scores_table(scores: dict[str, dict[str, float | None]]) -> AnswerTable:
    table = AnswerTable("test set", "score", "value")
    for name, values in scores.items():
        for score, value in values.items():
            table.add(name, score, "not finite" if value is None else f"{value:.4f}")
    return table


def scores_table(evaluations: list[Evaluation]) -> AnswerTable:
    table = AnswerTable(
        "test set",
        "metric",
        "score",
        *(Column(name, copied=True) for name in ("decoding", "signature")),
    )
    for evaluation in evaluations:
        decoding = search_label(evaluation.beam_size, evaluation.length_penalty)
        for metric, score in (
            ("BLEU", evaluation.bleu),
            ("chrF", evaluation.chrf),
            (MOSES_BLEU, evaluation.bleu_literature),
        ):
            table.add(evaluation.name, metric, f"{score.score:.2f}", decoding, score.signature)
        table.add(evaluation.name, "weights", "", "", evaluation.checkpoint)
        table.add(evaluation.name, "hypotheses", "", "", evaluation.hypotheses)
    return table
