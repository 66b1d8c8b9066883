"""Scores of the test-set translations in a run folder, computed without translating again.

    translations/NAME-STEP-beamB-alphaA.txt      ─┐
    references of the test set NAME (dataset)    ─┴▶ BLEU, chrF, each with its signature

`transloom evaluate` wrote the translations (`evaluation.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sacrebleu

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.config.pair import TARGET
from data_pipeline.storage.regular_files import read_regular
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.folder import RunFolder
from trainer.recipe import TrainingRecipe
from transloom.inference.evaluation import dataset_of

NEWEST = 6  # maximum number of files to score per test set
_MAX_BYTES = 2**26
# Matches the part of a file name after the name of the test set.
_NAME_SUFFIX = re.compile(
    r"-(?P<weights>\d{8}|average-of-.+)-beam(?P<beam>\d+)-alpha(?P<alpha>[\d.]+)\.txt"
)


@dataclass(frozen=True)
class StoredScore:
    """Score of a file with stored translations.

    Attributes:
        checkpoint: step of the checkpoint that made the translations, or the name of an average.
        score: name of the metric.
        value: the score itself.
        signature: sacreBLEU's signature of the score.
        file: name of the file, which has one translation per line.
    """

    test_set: str
    checkpoint: str
    beam_size: int
    length_penalty: float
    score: str
    value: float
    signature: str
    file: str


def stored_scores(run: RunFolder) -> list[StoredScore]:
    """Return the scores of a run's stored translations, ordered by test set, then by file name.

    Raises:
        RunError, DatasetError, OSError: the run's checkpoint or its dataset cannot be read.
    """
    paths = list_checkpoints(run.checkpoints)
    if not paths or not run.translations.is_dir():
        return []
    checkpoint = Checkpoint(paths[-1])
    recipe = TrainingRecipe.of_checkpoint(checkpoint.header.recipe, checkpoint.header.identity)
    found = {name: _files_of(run.translations, name) for name in recipe.data.tests}
    if not any(found.values()):
        return []
    store, manifest = dataset_of(checkpoint, recipe.data)
    scores: list[StoredScore] = []
    for name, files in found.items():
        references = load_heldout(store, manifest, name).texts[TARGET] if files else []
        for file, made_by in files:
            scores += _scores_of(name, file, made_by, references)
    return scores


def _files_of(folder: Path, name: str) -> list[tuple[Path, re.Match[str]]]:
    """Return the newest translation files of a test set, each with the match of its name."""
    matches = [
        (file, made_by)
        for file in folder.iterdir()
        if file.name.startswith(name)
        and (made_by := _NAME_SUFFIX.fullmatch(file.name[len(name) :]))
    ]
    matches.sort(key=lambda match: match[0].stat().st_mtime)
    return sorted(matches[-NEWEST:], key=lambda match: match[0].name)


def _scores_of(
    name: str, file: Path, made_by: re.Match[str], references: list[str]
) -> Iterator[StoredScore]:
    """Yield BLEU and chrF of a file, or nothing if it does not have one line per reference."""
    hypotheses = read_regular(file, _MAX_BYTES).decode("utf-8", "replace").split("\n")[:-1]
    if len(hypotheses) != len(references):
        return
    for score, metric in (("BLEU", sacrebleu.BLEU()), ("chrF", sacrebleu.CHRF())):
        value = metric.corpus_score(hypotheses, [references]).score
        yield StoredScore(
            test_set=name,
            checkpoint=made_by["weights"],
            beam_size=int(made_by["beam"]),
            length_penalty=float(made_by["alpha"]),
            score=score,
            value=value,
            signature=str(metric.get_signature()),
            file=file.name,
        )
