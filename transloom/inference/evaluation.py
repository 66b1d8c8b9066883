"""Evaluate a run on a test set with BLEU and chrF, each with a signature of the metric's settings.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are computed by sacreBLEU (Post 2018), on cased,
detokenised text. `bleu_literature` is BLEU on text that Moses has normalised, lower-cased and
tokenised. Papers on Multi30k report BLEU in this way; papers on other corpora may not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sacrebleu
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.config.data import DataConfig
from data_pipeline.config.pair import TARGET
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.storage.store import DatasetStore
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.errors import RunMismatchError
from run_store.scores import Scores
from trainer.process.placement import Placement
from trainer.tasks.task import training_task
from trainer.training.validation import Validator
from transloom.inference.hypotheses import make_hypotheses
from transloom.inference.trained_network import TrainedNetwork
from transloom.inference.translator import Translator

MOSES_BLEU = "BLEU of lower-cased Moses tokens"
MOSES_SIGNATURE = "moses lower-cased, normalised, tokenised; "  # precedes sacreBLEU's signature


@dataclass(frozen=True)
class TestSetScore:
    """Score on a test set, with a signature that describes the metric's settings."""

    score: float
    signature: str


@dataclass(frozen=True)
class Evaluation:
    """All scores of one test set."""

    name: str
    sentences: int
    checkpoint: str  # name of the checkpoint folder, or of the ensemble
    checkpoint_step: int  # for an ensemble, the step of its first member
    beam_size: int
    length_penalty: float
    bleu: TestSetScore
    chrf: TestSetScore
    bleu_literature: TestSetScore
    hypotheses: str


def evaluate(
    translator: Translator,
    dataset: DataConfig,
    name: str,
    translations_folder: Path,
    report: Callable[[int, int], None],
    processes: int | None = None,
) -> Evaluation:
    """Translate a test set, store the hypotheses, and score them.

    Args:
        dataset: location of the run's dataset.
        name: name of the test set.
        report: called with the number of sentences translated so far, and the total number.
        processes: number of parallel processes, or None to choose it automatically.
    """
    store, manifest = dataset_of(translator.checkpoint, dataset)
    heldout = load_heldout(store, manifest, name)
    made = make_hypotheses(translator, name, heldout, translations_folder, report, processes)
    hypotheses = made.texts
    checkpoint, decoding = translator.checkpoint, translator.decoding
    ensemble = translator.ensemble
    language = next(field.language for field in manifest.fields if field.name == TARGET)
    references = heldout.texts[TARGET]
    return Evaluation(
        name=name,
        sentences=len(heldout),
        checkpoint=ensemble.name if ensemble else checkpoint.path.name,
        checkpoint_step=checkpoint.step,
        beam_size=decoding.beam_size,
        length_penalty=decoding.length_penalty,
        bleu=_score(sacrebleu.BLEU(), hypotheses, references),
        chrf=_score(sacrebleu.CHRF(), hypotheses, references),
        bleu_literature=_score(
            sacrebleu.BLEU(tokenize="none", force=True),
            moses(hypotheses, language),
            moses(references, language),
            prefix=MOSES_SIGNATURE,
        ),
        hypotheses=str(made.file),
    )


def moses(sentences: Sequence[str], language: str) -> list[str]:
    """Lower-case, normalise and tokenise text as the Multi30k task prepares its references."""
    normalizer, tokenizer = MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)
    return [
        tokenizer.tokenize(normalizer.normalize(sentence.lower()), return_str=True)
        for sentence in sentences
    ]


def _score(
    metric: Any, hypotheses: list[str], references: list[str], prefix: str = ""
) -> TestSetScore:
    result = metric.corpus_score(hypotheses, [references])
    return TestSetScore(score=result.score, signature=prefix + str(metric.get_signature()))


def score_heldout(found: TrainedNetwork, dataset: DataConfig, name: str) -> Scores:
    """Return the scores of a run on a held-out set.

    Args:
        found: the run's network.
        dataset: location of the run's dataset.
        name: name of the held-out set.

    Raises:
        RunMismatchError: the run was trained on another dataset.
        DatasetError: the dataset or the held-out set does not exist.
    """
    store, manifest = dataset_of(found.checkpoint, dataset)
    task = training_task(found.recipe, manifest, found.tokenizers)
    scoring = task.scoring(load_heldout(store, manifest, name))
    validator = Validator(scoring, Placement(), found.recipe.trainer.validation_scores)
    result = validator.run(found.model)
    assert result is not None, "only a stop request returns None"
    return result.scores


def dataset_of(checkpoint: Checkpoint, dataset: DataConfig) -> tuple[DatasetStore, Manifest]:
    """Open the dataset that a checkpoint was trained on.

    Raises:
        RunMismatchError: the dataset at this location is a different one.
        DatasetError: there is no dataset at this location.
    """
    store, manifest = open_dataset(dataset)
    trained_on = checkpoint.header.dataset_identity
    if not manifest.descends_from(trained_on):
        raise RunMismatchError(
            f"The dataset at {store.location} has the manifest {manifest.identity[:16]}…, but the "
            f"checkpoint was trained on the manifest {trained_on[:16]}…. Name the run's dataset "
            "with --dataset"
        )
    return store, manifest
