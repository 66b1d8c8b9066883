"""Process of a replica: it loads checkpoints, and translates batches with the current one.

A second thread loads newer checkpoints. `replica` describes the lines of input and output.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from foundation.periodic_thread import PeriodicThread
from foundation.untrusted_text import logger_of
from model.errors import PrefixError
from model.inspection.alignment import Alignment
from transloom.inference.searchers import prepare_process
from transloom.inference.sentence_memory import LongSentenceError
from transloom.inference.serving.batches import Batch
from transloom.inference.serving.checkpoint_reloader import REASONS, CheckpointReloader
from transloom.inference.serving.messages import OneTranslation, Problem
from transloom.inference.serving.replica import (
    REPORT_SECONDS,
    SETTINGS,
    ReplicaReport,
    ReplicaStatus,
)
from transloom.inference.serving.settings import ReplicaSettings
from transloom.inference.translator import Translator

logger = logger_of(__name__)


def translate_input() -> None:
    """Translate the batches on standard input; end this process when the input ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server answers its requests before it ends
    output, sys.stdout = sys.stdout.buffer, sys.stderr  # keeps prints of libraries out of reports
    lock = threading.Lock()

    def write(report: ReplicaReport) -> None:
        with lock:
            output.write(report.model_dump_json().encode() + b"\n")
            output.flush()

    settings = SETTINGS.validate_json(sys.stdin.buffer.readline())
    prepare_process(settings.cpus)
    batches: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=[batches], name="input", daemon=True).start()
    try:
        reloader = CheckpointReloader(settings, partial(load, settings))
    except REASONS as error:
        write(ReplicaReport(status=None, failure=str(error)))
        return

    def status(translator: Translator) -> ReplicaStatus:
        return ReplicaStatus(
            checkpoint=translator.checkpoint.path.name,
            step=translator.checkpoint.step,
            changes=reloader.changes,
            damaged=reloader.damaged,
        )

    PeriodicThread("checkpoints", settings.look_seconds, reloader.reload).start()
    PeriodicThread(
        "reports",
        REPORT_SECONDS,
        lambda: write(ReplicaReport(status=status(reloader.current))),
        at_once=True,
    ).start()
    while True:
        batch = Batch.model_validate_json(batches.get())
        translator = reloader.current  # read once, since a reload may replace it meanwhile
        try:
            results = translate_batch(translator, batch, settings)
        except Exception:  # a bug or lack of memory: the next batch may succeed
            logger.exception("a batch failed")
            failed = Problem(kind="failed", problem="internal error; see the server's log")
            results = [failed for _ in batch.texts]
        write(ReplicaReport(status=status(translator), results=results))


def _read(batches: "SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        batches.put(line)
    os._exit(1)  # the server has ended, so end this process, even in the middle of a batch


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


def translate_batch(
    translator: Translator, batch: Batch, settings: ReplicaSettings
) -> list[list[OneTranslation] | Problem]:
    """Translate a batch, and return each sentence's result; a failure affects no other sentence."""
    usual = translator.decoding
    options = replace(settings.decoding, n_best=batch.search.n_best)
    translator.decoding = options.applied_to(usual)
    try:
        return _translated(translator, batch, settings.max_tokens)
    finally:
        translator.decoding = usual


def _translated(
    translator: Translator, batch: Batch, max_tokens: int | None
) -> list[list[OneTranslation] | Problem]:
    search = batch.search
    results: dict[int, list[OneTranslation] | Problem] = {}
    while rows := [row for row in range(len(batch.texts)) if row not in results]:
        texts = [batch.texts[row] for row in rows]
        prefixes = [batch.prefixes[row] for row in rows] if search.prefixed else None
        try:
            best = translator.translate_n_best(
                texts, search.tag, prefixes, search.n_best, max_tokens=max_tokens
            )
        except LongSentenceError as error:
            for index, tokens in error.sentences:
                why = f"it has {tokens:,} tokens, but {error.limit}: split the sentence"
                results[rows[index]] = Problem(kind="too_long", problem=why)
            continue
        except PrefixError as error:
            why = f"its prefix {error.problem}"
            results[rows[error.index]] = Problem(kind="prefix", problem=why)
            continue
        aligned: Sequence[Sequence[Alignment | None]] = [[None] * len(of_one) for of_one in best]
        if search.aligned:
            aligned = translator.align_words_n_best(texts, best, search.tag)
        for row, of_one, alignments in zip(rows, best, aligned, strict=True):
            results[row] = [
                OneTranslation(
                    text=one.text, score=one.score, alignment=None if pairs is None else [*pairs]
                )
                for one, pairs in zip(of_one, alignments, strict=True)
            ]
    return [results[row] for row in range(len(batch.texts))]
