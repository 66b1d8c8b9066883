"""Dispatch of waiting sentences to replicas, and of translations to their requests.

There is one asyncio task per replica. It takes a batch, sends it to the replica that Ray Serve
chooses, and takes the next batch after the response. Batches are therefore formed as late as
possible, from all waiting sentences. The sentences of a lost replica return to the queue; after
several losses of one sentence, its request fails. Idle tasks periodically request the status of a
replica.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from data_pipeline.errors import TokenizerError
from foundation.untrusted_text import logger_of
from foundation.wording import counted
from transloom.inference.serving.batch import Batch, BatchAnswer, Found, ReplicaStatus
from transloom.inference.serving.batch_queue import RequestedSearch, Sentence, SentenceQueue
from transloom.inference.serving.errors import RefusedError, ReplicaLostError
from transloom.inference.serving.facts import ServedRunFacts
from transloom.inference.serving.messages import ProblemKind, RunLimits, ServedRun, TranslateRequest
from transloom.inference.serving.metrics import ServingMetrics
from transloom.inference.serving.settings import Limits, ServingSettings

POLL_SECONDS = 2.0
# A replica whose last report is older than this is considered unavailable.
RECENT_SECONDS = 30.0
MAX_LOSSES = 4
PAUSE_SECONDS = 0.2  # between the loss of a replica and the next batch

logger = logger_of(__name__)

# Function that sends a batch to a replica and returns the replica's response.
Ask = Callable[[Batch], Awaitable[BatchAnswer]]


@dataclass(eq=False)
class _Pending:
    """Request that waits for the translations of its sentences.

    Attributes:
        done: completed when all sentences are translated; has an exception if the request fails.
        found: result of each sentence, or None while it is not translated.
        checkpoints: names of the checkpoints that were used so far.
    """

    done: "asyncio.Future[None]"
    found: list[Found | None]
    checkpoints: list[str] = field(default_factory=list)

    def take(self, position: int, found: Found, checkpoint: str) -> None:
        if found.problem is not None:
            kind: ProblemKind = "prefix" if found.kind == "prefix" else "too_long"
            status = 400 if kind == "prefix" else 413
            what = f"sentence {position + 1} cannot be translated: {found.problem}"
            self.fail(RefusedError(status, kind, what, position))
            return
        self.found[position] = found
        if checkpoint not in self.checkpoints:
            self.checkpoints.append(checkpoint)
        if all(one is not None for one in self.found) and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: RefusedError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Dispatcher:
    """Queue of the requests to one run, and the tasks that send batches to its replicas.

    Attributes:
        name: the run's name in URL paths and metrics.
    """

    def __init__(
        self,
        name: str,
        facts: ServedRunFacts,
        ask: Ask,
        settings: ServingSettings,
        metrics: ServingMetrics,
    ) -> None:
        self.name = name
        self._facts, self._ask, self._metrics = facts, ask, metrics
        self._limits, self._replicas = settings.limits, settings.replicas
        self._waiting: SentenceQueue[_Pending] = SentenceQueue(
            settings.batching.tokens, settings.batching.wait_seconds
        )
        self._arriving = 0  # sentences whose tokens are being counted; the limit includes them
        self._arrived = asyncio.Event()
        self._replica_statuses: dict[str, tuple[float, ReplicaStatus]] = {}
        self._batch_send_times: list[float] = []  # send time of each batch without a response
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start sending batches; call this in the event loop that serves requests."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._replicas)]

    async def close(self) -> None:
        """Stop sending batches; requests that still wait are not answered."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def translate(self, request: TranslateRequest) -> tuple[list[Found], list[str]]:
        """Translate a request.

        Returns:
            The result of each sentence, and the names of the checkpoints that were used.

        Raises:
            RefusedError: the request exceeds a limit, or its translation failed.
        """
        _check_numbers(request, self._limits)
        self._check_queue_limit(len(request.sentences))
        self._arriving += len(request.sentences)
        try:
            counts = await asyncio.to_thread(_counted_tokens, request, self._facts)
        finally:
            self._arriving -= len(request.sentences)
        search = RequestedSearch(
            request.tag, request.n_best, request.prefixes is not None, request.alignments
        )
        pending = _Pending(asyncio.get_running_loop().create_future(), [None] * len(counts))
        now = time.monotonic()
        prefixes = request.prefixes or [""] * len(counts)
        texts = zip(request.sentences, prefixes, counts, strict=True)
        self._waiting.add(
            [
                Sentence(text, prefix, tokens, search, now, pending, position)
                for position, (text, prefix, tokens) in enumerate(texts)
            ]
        )
        self._arrived.set()
        try:
            await pending.done
        finally:  # also if the client has left or the request timed out
            self._waiting.drop(pending)
        self._metrics.sentences.labels(self.name).inc(len(counts))
        self._metrics.source_tokens.labels(self.name).inc(sum(counts))
        return [one for one in pending.found if one is not None], pending.checkpoints

    def current_status(self) -> ServedRun:
        """Return the status of the run."""
        lately = self.recent_replicas()
        return ServedRun(
            name=self.name,
            source_language=self._facts.source_language,
            target_language=self._facts.target_language,
            ready=bool(lately),
            replicas=len(lately),
            checkpoints=sorted({current_status.checkpoint for current_status in lately}),
            damaged=sorted({one for current_status in lately for one in current_status.damaged}),
            waiting_sentences=len(self._waiting),
            limits=RunLimits(
                sentences=self._limits.sentences,
                tokens=self._facts.longest,
                n_best=self._limits.n_best,
                request_bytes=self._limits.request_bytes,
            ),
        )

    def recent_replicas(self) -> list[ReplicaStatus]:
        """Return the status of each replica that reported recently."""
        # A replica that translates a batch cannot report its status. RECENT_SECONDS is therefore
        # counted back from the time when the oldest batch in progress was sent.
        since = min([time.monotonic(), *self._batch_send_times]) - RECENT_SECONDS
        return [
            current_status for at, current_status in self._replica_statuses.values() if at >= since
        ]

    def _check_queue_limit(self, sentences: int) -> None:
        most = self._limits.waiting_sentences
        waiting = len(self._waiting) + self._arriving
        if waiting + sentences > max(most, sentences) or waiting >= most:
            raise RefusedError(
                429,
                "queue_full",
                f"the queue has {counted(waiting, 'sentence')}, and its limit is {most:,}: retry "
                "later",
                retry_after_seconds=1,
            )

    async def _work(self) -> None:
        while True:
            self._arrived.clear()
            seconds = self._waiting.seconds_to_wait(time.monotonic())
            if seconds == 0.0:
                await self._send(self._waiting.take())
                continue
            try:
                async with asyncio.timeout(POLL_SECONDS if seconds is None else seconds):
                    await self._arrived.wait()
            except TimeoutError:
                if seconds is None:
                    await self.poll_replica()

    async def poll_replica(self) -> None:
        """Request the status of a replica, and record it."""
        try:
            self._update_replica(
                (await self._ask(Batch(RequestedSearch(None, 1, False, False)))).current_status
            )
        except ReplicaLostError:
            pass  # the next poll may reach another replica
        except Exception:  # a bug; this task must still send further batches
            logger.exception("a replica of %s did not return its status", self.name)

    async def _send(self, sentences: list[Sentence[_Pending]]) -> None:
        began = time.monotonic()
        batch = Batch(
            sentences[0].search,
            tuple(one.text for one in sentences),
            tuple(one.prefix for one in sentences),
        )
        self._batch_send_times.append(began)
        try:
            answer = await self._ask(batch)
        except ReplicaLostError as error:
            await self._lost(sentences, error)
        except Exception:  # a bug or lack of memory: the next batch may succeed
            logger.exception("a batch of %s failed", self.name)
            problem = RefusedError(500, "failed", "the translation failed; see the server's log")
            for one in sentences:
                one.owner.fail(problem)
        else:
            self._update_replica(answer.current_status)
            for one, found in zip(sentences, answer.found, strict=True):
                one.owner.take(one.position, found, answer.current_status.checkpoint)
            metrics, name = self._metrics, self.name
            metrics.batch_seconds.labels(name).observe(time.monotonic() - began)
            metrics.batch_sentences.labels(name).observe(len(sentences))
            longest = max(one.tokens for one in sentences)
            metrics.batch_tokens.labels(name).observe(longest * len(sentences))
        finally:
            self._batch_send_times.remove(began)

    async def _lost(self, sentences: list[Sentence[_Pending]], error: ReplicaLostError) -> None:
        logger.warning(
            "a replica of %s was lost while it translated %s: %s",
            self.name,
            counted(len(sentences), "sentence"),
            error,
        )
        self._metrics.lost_batches.labels(self.name).inc()
        self._replica_statuses.clear()  # the lost one is unknown, and the others will report again
        again = [one for one in sentences if not one.owner.done.done()]
        for one in again:
            if one.losses + 1 >= MAX_LOSSES:
                one.owner.fail(
                    RefusedError(
                        503,
                        "failed",
                        f"{MAX_LOSSES} replicas were lost while they translated sentence "
                        f"{one.position + 1}: retry later",
                        one.position,
                        retry_after_seconds=5,
                    )
                )
        self._waiting.add_again([one for one in again if not one.owner.done.done()])
        self._arrived.set()
        await asyncio.sleep(PAUSE_SECONDS)

    def _update_replica(self, current_status: ReplicaStatus) -> None:
        _, before = self._replica_statuses.get(current_status.process, (0.0, None))
        if before is None or before.checkpoint != current_status.checkpoint:
            logger.info("%s translates with %s", self.name, current_status.checkpoint)
        for problem in current_status.damaged:
            if before is None or problem not in before.damaged:
                logger.warning("%s. The replica keeps %s", problem, current_status.checkpoint)
        self._replica_statuses[current_status.process] = time.monotonic(), current_status


def _check_numbers(request: TranslateRequest, most: Limits) -> None:
    """Check a request's numbers of sentences and prefixes, and its `n_best`.

    Raises:
        RefusedError: a number exceeds its limit, or prefixes and sentences differ in number.
    """
    if len(request.sentences) > most.sentences:
        raise RefusedError(
            413,
            "too_many_sentences",
            f"the request has {counted(len(request.sentences), 'sentence')}, but at most "
            f"{most.sentences:,} are accepted: send several requests",
        )
    if request.n_best > most.n_best:
        raise RefusedError(
            400,
            "not_allowed",
            f"n_best is {request.n_best:,}, but it may be at most {most.n_best:,}",
        )
    if request.prefixes is not None and len(request.prefixes) != len(request.sentences):
        raise RefusedError(
            400,
            "not_understood",
            f"the request has {counted(len(request.sentences), 'sentence')} and "
            f"{counted(len(request.prefixes), 'prefix')}, but each sentence needs a prefix: "
            'use "" for a sentence without a prefix',
        )


def _counted_tokens(request: TranslateRequest, facts: ServedRunFacts) -> list[int]:
    """Return the number of tokens of each sentence, with tag and EOS.

    Raises:
        RefusedError: the run has no such tag, or a sentence has too many tokens.
    """
    try:
        counts = facts.count_tokens(request.sentences, request.tag)
    except TokenizerError as error:
        raise RefusedError(400, "tag", str(error)) from error
    for position, tokens in enumerate(counts):
        if tokens > facts.longest:
            raise RefusedError(
                413,
                "too_long",
                f"sentence {position + 1} has {tokens:,} tokens, but at most "
                f"{facts.longest:,} are accepted: split the sentence",
                position,
            )
    return counts
