"""`transloom translate … --on-cluster`: translation of a large file by actors of a Ray cluster.

    file ─▶ check of all lines ─▶ chunks ─▶ actors ─▶ a stored result per chunk ─▶ OUT

A chunk has SENTENCES_AT_ONCE lines, like a batch of the command without `--on-cluster`, so both
commands write the same bytes. Lines are read when their chunk is assigned to an actor, so that only
a few lines are in memory at any time.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from cluster.errors import ClusterError
from cluster.ray.embedded import EmbeddedRay
from cluster.ray.session import ray_session
from foundation.shown_urls import url_of
from foundation.terminal import Terminal, percentage_bars, warn
from run_store.checkpoints.checkpoint import sha256_of
from run_store.checkpoints.format import HEADER
from transloom.inference.distributed.actors import (
    ActorResources,
    TranslatorOrigin,
    translate_chunks,
)
from transloom.inference.distributed.chunk_store import (
    ChunkStore,
    InputFile,
    WorkMetadata,
    scan_file,
)
from transloom.inference.sentence_memory import SentenceLimit
from transloom.inference.text_input import STANDARD_INPUT
from transloom.inference.translate import (
    SENTENCES_AT_ONCE,
    LineOptions,
    check_lengths,
    require_no_context,
)
from transloom.inference.translator import Translator


def translate_on_cluster(
    translator: Translator,
    file: str,
    output: Path,
    wanted: LineOptions,
    resources: ActorResources,
    address: str | None,
    console: Terminal,
) -> None:
    """Translate a file into an output file, or continue an interrupted translation.

    Args:
        address: HOST:PORT of a running cluster, or `auto`; None to start Ray on this machine.

    Raises:
        CorpusError: the file cannot be read, or a sentence is too long; nothing is translated.
        ClusterError: the stored results were made with other settings, or the cluster fails.
        RunMismatchError: the model reads preceding sentences as context.
    """
    require_no_context(translator, "--on-cluster translates lines without this context")
    if file == STANDARD_INPUT:
        raise ClusterError(
            "Standard input cannot be read again to continue a cluster's work: name a file"
        )
    given = scan_file(file, SENTENCES_AT_ONCE)
    limit = translator.longest_sentence(wanted.max_tokens)
    check_lengths(_token_counts(translator, given, wanted.tag), file, limit, wanted.long_lines)
    wanted = replace(wanted, max_tokens=limit.tokens)
    card = _card(translator, given, wanted, limit)
    origin = TranslatorOrigin(
        runs=tuple(
            (url_of(weights.run) or str(weights.run.resolve()), weights.checkpoint, sha256)
            for (weights, _), sha256 in zip(translator.members, card.checkpoints, strict=True)
        ),
        decoding=translator.decoding,
        precision=translator.precision,
        device="cuda" if resources.gpus else "cpu",
        threads=max(1, int(resources.cpus)),
    )
    work = ChunkStore(output, len(given.starts))
    with work.owned(card) as chunks:
        if chunks:
            with ray_session(address, EmbeddedRay(cpus=resources.cpus)):
                results = translate_chunks(origin, wanted, resources, chunks, given.chunk, warn)
                with closing(results):  # end the actors before the session, even on an error
                    _keep_results(work, given, results, chunks, console)
        work.finish()


def _card(
    translator: Translator, given: InputFile, wanted: LineOptions, limit: SentenceLimit
) -> WorkMetadata:
    return WorkMetadata(
        checkpoints=[sha256_of(found.path / HEADER) for _, found in translator.members],
        precision=translator.precision,
        decoding=translator.decoding.model_dump(mode="json"),
        input_sha256=given.sha256,
        lines=given.lines,
        lines_per_chunk=given.lines_per_chunk,
        **asdict(wanted) | {"max_tokens": None if limit.reason == "memory" else limit.tokens},
    )


def _keep_results(
    work: ChunkStore,
    given: InputFile,
    results: Iterator[tuple[int, list[str]]],
    chunks: list[int],
    console: Terminal,
) -> None:
    """Store the results of the chunks, and show the progress."""
    lines = given.lines - sum(given.size(n) for n in chunks)
    with percentage_bars(console) as progress:
        bar = progress.add_task("translating", total=given.lines, completed=lines)
        begun, new = time.monotonic(), 0
        for number, found in results:
            work.keep(number, found)
            new += given.size(number)
            speed = new / max(time.monotonic() - begun, 1e-9)
            said = f"translating lines, {speed:,.0f} a second"
            progress.update(bar, completed=lines + new, description=said)


def _token_counts(translator: Translator, given: InputFile, tag: str | None) -> Iterator[int]:
    for number in range(len(given.starts)):
        yield from translator.count_tokens(given.chunk(number), tag)
