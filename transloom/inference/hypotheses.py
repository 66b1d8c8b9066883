"""Store a checkpoint's translations of test sets, so that no test set is translated twice.

    translations/NAME-STEP-beamB-alphaA.txt    one hypothesis per line
    translations/NAME-STEP-beamB-alphaA.json   their origin: `HypothesesMetadata`

Stored hypotheses are reused only if their metadata has the current checkpoint, sources and search
options, and if the file with the hypotheses has the recorded hash.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipeline.batching.task import HeldOut
from data_pipeline.config.pair import SOURCE
from data_pipeline.storage.regular_files import read_regular, write_atomically
from foundation.file_model import SMALL, Count, FileModel, parse_object
from model.config.transformer import DecodingConfig
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.folder_names import STEP
from run_store.checkpoints.format import HEADER
from trainer.errors import TranslationError
from trainer.tasks.task import save_texts
from transloom.inference.engine_names import Precision
from transloom.inference.sentence_memory import LongSentenceError
from transloom.inference.translator import Translator


class HypothesesOrigin(FileModel):
    """Everything that determines the hypotheses of a test set.

    Attributes:
        checkpoint: name of the checkpoint or of the ensemble.
        checkpoint_sha256: hash of the checkpoint's checkpoint.json, which lists the sha256 of every
            other file. For an ensemble, the hash of its members' hashes.
        sources_sha256: hash of the source sentences, each followed by a line end.
        tag: tag before every source sentence, or None.
        decoding: options of the search.
        engine: the engine and its number format, or None for transloom's own search.
    """

    test_set: str
    checkpoint: str
    checkpoint_sha256: str
    sources_sha256: str
    tag: str | None
    decoding: dict[str, Any]
    precision: Precision
    engine: str | None = None


class HypothesesMetadata(FileModel):
    """Contents of a metadata file: the origin of the hypotheses, and their file's sha256."""

    version: Literal[1] = 1
    origin: HypothesesOrigin
    sentences: Count
    sha256: str


@dataclass(frozen=True)
class Hypotheses:
    """Translations of a test set, in the order of its sentences.

    Attributes:
        file: the file with the translations, one per line.
        reused: True if an earlier command stored them.
    """

    texts: list[str]
    file: Path
    reused: bool


def origin_of(
    checkpoint: Checkpoint,
    name: str,
    heldout: HeldOut,
    decoding: DecodingConfig,
    precision: Precision,
    engine: str | None = None,
) -> HypothesesOrigin:
    """Return the origin of the hypotheses that a checkpoint produces for a test set."""
    return HypothesesOrigin(
        test_set=name,
        checkpoint=checkpoint.path.name,
        checkpoint_sha256=sha256_of(checkpoint.path / HEADER),
        sources_sha256=sha256_of_lines(heldout.texts[SOURCE]),
        tag=heldout.tags.get(SOURCE),
        decoding=decoding.model_dump(mode="json"),
        precision=precision,
        engine=engine,
    )


def sha256_of_lines(texts: Sequence[str]) -> str:
    """Return the sha256 of a file that contains these texts, one per line."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()


def file_name(origin: HypothesesOrigin) -> str:
    """Return the file name of hypotheses with this origin, without its suffix."""
    weights = origin.checkpoint.removeprefix(STEP)
    beam, alpha = origin.decoding["beam_size"], origin.decoding["length_penalty"]
    engine = "" if origin.engine is None else f"-{origin.engine}"
    return f"{origin.test_set}-{weights}-beam{beam}-alpha{alpha:g}{engine}"


def find_hypotheses(folder: Path, origin: HypothesesOrigin) -> Hypotheses | None:
    """Return the stored hypotheses of this origin, or None if they are missing or damaged."""
    file = folder / f"{file_name(origin)}.txt"
    try:
        values = parse_object(read_regular(file.with_suffix(".json"), SMALL.bytes))
        card = HypothesesMetadata.model_validate(values)
        if card.origin != origin or sha256_of(file) != card.sha256:
            return None
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, ValueError):
        return None
    return Hypotheses(lines, file, reused=True) if len(lines) == card.sentences else None


def make_hypotheses(
    translator: Translator,
    name: str,
    heldout: HeldOut,
    folder: Path,
    report: Callable[[int, int], None],
    processes: int | None = None,
) -> Hypotheses:
    """Translate a test set, and store the hypotheses with their origin.

    Args:
        name: name of the test set.
        folder: directory for the hypotheses and their metadata.
        report: called with the number of sentences translated so far, and the total number.
        processes: number of parallel processes, or None to choose it automatically.

    Raises:
        TranslationError: memory does not suffice for a sentence.
    """
    total = len(heldout)
    report(0, total)
    sources, tag = heldout.texts[SOURCE], heldout.tags.get(SOURCE)
    whole = sys.maxsize  # no limit except memory: a set is scored in full or not at all
    try:
        with translator.in_processes(processes or translator.processes_for(total)):
            texts = translator.translate(
                sources, tag, lambda done: report(done, total), max_tokens=whole
            )
    except LongSentenceError as error:
        raise TranslationError(f"The held-out set {name} cannot be scored: {error}") from error
    origin = origin_of(
        translator.checkpoint,
        name,
        heldout,
        translator.decoding,
        translator.precision,
        translator.engine,
    )
    if ensemble := translator.ensemble:
        origin = origin.model_copy(
            update={"checkpoint": ensemble.name, "checkpoint_sha256": ensemble.sha256}
        )
    file = save_texts(folder, file_name(origin), texts)
    card = HypothesesMetadata(origin=origin, sentences=total, sha256=sha256_of(file))
    write_atomically(file.with_suffix(".json"), card.model_dump_json(indent=1) + "\n")
    return Hypotheses(texts, file, reused=False)
