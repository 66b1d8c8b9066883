"""The translations of a test set that a checkpoint has made, kept so that nobody makes them twice.

    translations/NAME-STEP-beamB-alphaA.txt    a hypothesis a line
    translations/NAME-STEP-beamB-alphaA.json   what made them: `HypothesesMetadata`

They are taken for those of a checkpoint only if its hash, the sources' and the search are those on
the card, and the file has the card's hash.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipeline.batching.task import HeldOut
from data_pipeline.config.pair import SOURCE
from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import Count, FileModel
from foundation.strict_json import SMALL, parse_object
from model.config.transformer import DecodingConfig
from trainer.checkpoints.format import HEADER, STEP, Checkpoint, sha256_of
from trainer.errors import TranslationError
from trainer.tasks.task import save_texts
from transloom.inference.sentence_memory import LongSentenceError
from transloom.inference.trained_network import Precision
from transloom.inference.translator import Translator


class HypothesesOrigin(FileModel):
    """What hypotheses depend on.

    Attributes:
        checkpoint: its name, or that of an ensemble.
        checkpoint_sha256: of its checkpoint.json, which names the sha256 of every other file; of an
            ensemble, of these hashes.
        sources_sha256: of the sources, each with a line end.
        decoding: the search.
        engine: what searched, and in which numbers; None: transloom's own search. Then it is not
            written, so that earlier versions know the card.
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
    """What made the hypotheses of a file, and the sha256 of the file."""

    version: Literal[1] = 1
    origin: HypothesesOrigin
    sentences: Count
    sha256: str


@dataclass(frozen=True)
class Hypotheses:
    """The translations of a test set, in its order.

    Attributes:
        file: has them, a line each.
        reused: whether they were there already.
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
    """What the hypotheses of a checkpoint for a test set would depend on."""
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
    """The hash of the file that has these texts, a line each."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()


def file_name(origin: HypothesesOrigin) -> str:
    """The name of a file of hypotheses, without its ending."""
    weights = origin.checkpoint.removeprefix(STEP)
    beam, alpha = origin.decoding["beam_size"], origin.decoding["length_penalty"]
    engine = "" if origin.engine is None else f"-{origin.engine}"
    return f"{origin.test_set}-{weights}-beam{beam}-alpha{alpha:g}{engine}"


def find_hypotheses(folder: Path, origin: HypothesesOrigin) -> Hypotheses | None:
    """The hypotheses that were made earlier; None if there are none that are surely these."""
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
    """Translate a test set, and keep the hypotheses with what made them.

    Args:
        report: is told how many of how many sentences are done.
        processes: how many translate at once; None for as many as are worth it.

    Raises:
        TranslationError: memory does not suffice for a sentence.
    """
    total = len(heldout)
    report(0, total)
    sources, tag = heldout.texts[SOURCE], heldout.tags.get(SOURCE)
    whole = sys.maxsize  # a set is scored whole, or refused because memory does not suffice
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
    unwritten = {"origin": {"engine"}} if origin.engine is None else None
    written = card.model_dump_json(indent=1, exclude=unwritten)
    write_atomically(file.with_suffix(".json"), written + "\n")
    return Hypotheses(texts, file, reused=False)
