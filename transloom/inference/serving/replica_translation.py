"""Loading of a replica's translator, and translation of a batch with it."""

from collections.abc import Sequence
from dataclasses import replace

from model.errors import PrefixError
from model.inspection.alignment import Alignment
from transloom.inference.sentence_memory import LongSentenceError
from transloom.inference.serving.batch import Batch, Found
from transloom.inference.serving.settings import ReplicaSettings
from transloom.inference.translator import Translator


def load(settings: ReplicaSettings, checkpoint: str) -> Translator:
    """Load and verify a checkpoint of the run, and do all work that would delay the first batch.

    With the engine CTranslate2, this also converts the model. The errors are those of
    `Translator.load`.
    """
    wanted = settings.decoding
    translator = Translator.load(
        settings.run,
        checkpoint,
        precision=wanted.precision,
        engine=wanted.engine,
        compute_type=wanted.compute_type,
        threads=settings.cpus,
    )
    translator.prepare()
    return translator


def translate_batch(translator: Translator, batch: Batch, settings: ReplicaSettings) -> list[Found]:
    """Translate a batch, and return each sentence's result; a failure affects no other sentence."""
    usual = translator.decoding
    options = replace(settings.decoding, n_best=batch.search.n_best)
    translator.decoding = options.applied_to(usual)
    try:
        return _translated(translator, batch, settings.max_tokens)
    finally:
        translator.decoding = usual


def _translated(translator: Translator, batch: Batch, max_tokens: int | None) -> list[Found]:
    found: dict[int, Found] = {}
    while rows := [row for row in range(len(batch.texts)) if row not in found]:
        texts = [batch.texts[row] for row in rows]
        prefixes = [batch.prefixes[row] for row in rows] if batch.search.prefixed else None
        try:
            best = translator.translate_n_best(
                texts, batch.search.tag, prefixes, batch.search.n_best, max_tokens=max_tokens
            )
        except LongSentenceError as error:
            for index, tokens in error.sentences:
                why = f"it has {tokens:,} tokens, but {error.limit}"
                found[rows[index]] = Found(problem=why, kind="too_long")
            continue
        except PrefixError as error:
            found[rows[error.index]] = Found(problem=f"its prefix {error.problem}", kind="prefix")
            continue
        aligned: Sequence[Sequence[Alignment | None]] = [[None] * len(of_one) for of_one in best]
        if batch.search.aligned:
            aligned = translator.align_words_n_best(texts, best, batch.search.tag)
        for row, of_one, alignments in zip(rows, best, aligned, strict=True):
            pairs = zip(of_one, alignments, strict=True)
            found[row] = Found(tuple((one.text, one.score, alignment) for one, alignment in pairs))
    return [found[row] for row in range(len(batch.texts))]
