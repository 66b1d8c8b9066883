"""What a replica does with a translator: load it, and find the translations of a batch."""

import torch

from model.errors import PrefixError
from model.inspection.alignment import Alignment
from trainer.memory.host_memory import keep_freed
from transloom.inference.sentence_memory import LongSentenceError
from transloom.inference.serving.batch import Batch, Found
from transloom.inference.serving.settings import ReplicaSettings
from transloom.inference.translator import Translator


def prepare_process(settings: ReplicaSettings) -> None:
    """Let this process compute with so many threads, and keep a batch's memory for the next."""
    torch.set_num_threads(settings.cpus)
    keep_freed()


def load(settings: ReplicaSettings, checkpoint: str) -> Translator:
    """The run with the weights of a checkpoint, verified; raises what `Translator.load` does.

    All that a batch needs is there: also what CTranslate2 translates with.
    """
    translator = Translator.load(
        settings.run,
        checkpoint,
        precision=settings.precision,
        engine=settings.engine,
        compute_type=settings.compute_type,
        threads=settings.cpus,
    )
    translator.prepare()
    return translator


def translated(translator: Translator, batch: Batch, settings: ReplicaSettings) -> list[Found]:
    """What is found for each sentence; those that cannot be translated cost no others."""
    usual = translator.decoding
    width = usual.beam_size if settings.beam_size is None else settings.beam_size
    alpha = usual.length_penalty if settings.length_penalty is None else settings.length_penalty
    wanted = {"beam_size": max(width, batch.search.n_best), "length_penalty": alpha}
    translator.decoding = usual.model_copy(update=wanted)
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
                why = f"has {tokens:,} tokens, but {error.limit}"
                found[rows[index]] = Found(problem=why, kind="too_long")
            continue
        except PrefixError as error:
            found[rows[error.index]] = Found(problem=f"its prefix {error.problem}", kind="prefix")
            continue
        alignments: list[Alignment] | None = None
        if batch.search.aligned:
            flat = [(text, one) for text, of_one in zip(texts, best, strict=True) for one in of_one]
            alignments = translator.align_words(
                [text for text, _ in flat], [one for _, one in flat], batch.search.tag
            )
        of_next = iter(alignments) if alignments is not None else None
        for row, of_one in zip(rows, best, strict=True):
            found[row] = Found(
                tuple(
                    (one.text, one.score, next(of_next) if of_next is not None else None)
                    for one in of_one
                )
            )
    return [found[row] for row in range(len(batch.texts))]
