"""Dispatch of waiting sentences to a run's replicas.

There is one asyncio task per replica. It takes a batch, sends it to the replica, and takes the next
batch after the results. Batches are therefore formed as late as possible, from all waiting
sentences. When a replica is lost, its task starts another one, and the sentences of its batch
return to the queue. After several losses of one sentence, its request fails.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress

from cluster.errors import ClusterError
from data_pipeline.errors import TokenizerError
from foundation.untrusted_text import logger_of
from foundation.wording import counted
from transloom.inference.serving.batches import (
    Batch,
    RequestedSearch,
    Sentence,
    SentenceQueue,
    Translated,
)
from transloom.inference.serving.facts import ServedRunFacts
from transloom.inference.serving.messages import (
    Problem,
    ProblemKind,
    RefusedError,
    RunLimits,
    ServedRun,
    TranslateAnswer,
    TranslateRequest,
)
from transloom.inference.serving.metrics import ServingMetrics
from transloom.inference.serving.replica import Replica, ReplicaLostError, ReplicaStatus
from transloom.inference.serving.settings import Limits, ServingSettings

MAX_LOSSES = 4
# HTTP status of a request if a replica reports this problem with one of its sentences.
STATUS_OF_PROBLEM: dict[ProblemKind, int] = {"prefix": 400, "too_long": 413, "failed": 500}
# Pauses between the loss of a replica and the start of the next one.
PAUSE_SECONDS = 0.2
PAUSE_SECONDS_AFTER_START = 10.0  # if the replica was lost before it was ready

logger = logger_of(__name__)

# Function that returns a context; the replica starts when the context begins, and ends with it.
StartReplica = Callable[[], AbstractAsyncContextManager[Replica]]


class Dispatcher:
    """Queue of the requests to one run, and the tasks that send batches to its replicas.

    Attributes:
        name: the run's name in URL paths and metrics.
    """

    def __init__(
        self,
        name: str,
        facts: ServedRunFacts,
        start_replica: StartReplica,
        settings: ServingSettings,
        metrics: ServingMetrics,
    ) -> None:
        self.name = name
        self._facts, self._start_replica, self._metrics = facts, start_replica, metrics
        self._limits, self._replica_count = settings.limits, settings.replicas
        self._waiting = SentenceQueue(settings.batching)
        self._arriving = 0  # sentences whose tokens are being counted; the limit includes them
        self._arrived = asyncio.Event()
        self._replicas: list[Replica] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> "list[asyncio.Future[None]]":
        """Start the replicas; call this in the event loop that serves requests.

        Returns:
            A future for each replica, completed when it is ready. The future has a ClusterError if
            the replica is lost before.
        """
        starts = [asyncio.get_running_loop().create_future() for _ in range(self._replica_count)]
        self._tasks = [asyncio.create_task(self._keep_replica(start)) for start in starts]
        return starts

    async def close(self) -> None:
        """End the replicas; requests that still wait are not answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def translate(self, request: TranslateRequest) -> TranslateAnswer:
        """Translate a request.

        Raises:
            RefusedError: the request exceeds a limit, or its translation failed.
        """
        _check_numbers(request, self._limits)
        self._check_queue_limit(len(request.sentences))
        self._arriving += len(request.sentences)
        try:
            counts = await asyncio.to_thread(
                self._facts.count_tokens, request.sentences, request.tag
            )
        except TokenizerError as error:
            raise RefusedError(400, "tag", str(error)) from error
        finally:
            self._arriving -= len(request.sentences)
        search = RequestedSearch(
            request.tag, request.n_best, request.prefixes is not None, request.alignments
        )
        now, prefixes = time.monotonic(), request.prefixes or [""] * len(counts)
        texts = zip(request.sentences, prefixes, counts, strict=True)
        sentences = [
            Sentence(text, prefix, tokens, search, now, position, asyncio.Future())
            for position, (text, prefix, tokens) in enumerate(texts)
        ]
        self._waiting.add(sentences)
        self._arrived.set()
        try:
            results = await asyncio.gather(*(one.result for one in sentences))
        finally:  # also if the client has left, or the request timed out or failed
            for one in sentences:
                one.result.cancel()
        self._metrics.sentences.labels(self.name).inc(len(counts))
        self._metrics.source_tokens.labels(self.name).inc(sum(counts))
        return TranslateAnswer(
            run=self.name,
            checkpoints=list(dict.fromkeys(one.checkpoint for one in results)),
            translations=[one.translations for one in results],
        )

    def current_status(self) -> ServedRun:
        """Return the status of the run."""
        replicas = self.replica_statuses()
        return ServedRun(
            name=self.name,
            source_language=self._facts.source_language,
            target_language=self._facts.target_language,
            ready=bool(replicas),
            replicas=len(replicas),
            checkpoints=sorted({replica.checkpoint for replica in replicas}),
            damaged=sorted({problem for replica in replicas for problem in replica.damaged}),
            waiting_sentences=len(self._waiting),
            limits=RunLimits(
                sentences=self._limits.sentences,
                tokens=self._facts.longest,
                n_best=self._limits.n_best,
                request_bytes=self._limits.request_bytes,
            ),
        )

    def replica_statuses(self) -> list[ReplicaStatus]:
        """Return the status of each replica that is ready."""
        return [replica.status for replica in self._replicas]

    def _check_queue_limit(self, sentences: int) -> None:
        most = self._limits.waiting_sentences
        waiting = len(self._waiting) + self._arriving
        if waiting + sentences > max(most, sentences) or waiting >= most:
            full = f"the queue has {counted(waiting, 'sentence')}, and its limit is {most:,}"
            raise RefusedError(429, "queue_full", f"{full}: retry later")

    async def _keep_replica(self, start: "asyncio.Future[None]") -> None:
        """Run a replica, and start another one whenever it is lost.

        Args:
            start: completed when the first replica is ready; has an exception if it is lost before.
        """
        while True:
            pause = PAUSE_SECONDS_AFTER_START
            try:
                async with self._start_replica() as replica:
                    pause = PAUSE_SECONDS
                    if not start.done():
                        start.set_result(None)
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(replica.listen())
                        tasks.create_task(self._feed(replica))
            except* Exception as errors:
                problem = errors.exceptions[0]
                bug = None if isinstance(problem, ReplicaLostError) else problem
                logger.warning("a replica of %s is lost: %s", self.name, problem, exc_info=bug)
                if not start.done():
                    what = f"No replica of {self.name} started: {problem}"
                    start.set_exception(ClusterError(what))
            await asyncio.sleep(pause)

    async def _feed(self, replica: Replica) -> None:
        """Send batches to a replica; the replica's loss cancels this task."""
        self._replicas.append(replica)
        try:
            while True:
                self._arrived.clear()
                seconds = self._waiting.seconds_to_wait(time.monotonic())
                if seconds == 0.0:
                    await self._send(replica, self._waiting.take())
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._arrived.wait()
        finally:
            self._replicas.remove(replica)

    async def _send(self, replica: Replica, sentences: Sequence[Sentence]) -> None:
        began = time.monotonic()
        batch = Batch(
            search=sentences[0].search,
            texts=[one.text for one in sentences],
            prefixes=[one.prefix for one in sentences],
        )
        try:
            report = await replica.translate(batch)
        except BaseException:  # also CancelledError, because a lost replica may cancel this task
            self._repeat(sentences)
            raise
        assert report.status is not None
        assert report.results is not None
        for one, result in zip(sentences, report.results, strict=True):
            if isinstance(result, Problem):
                what = f"sentence {one.position + 1} cannot be translated: {result.problem}"
                status = STATUS_OF_PROBLEM[result.kind]
                one.fail(RefusedError(status, result.kind, what, one.position))
            elif not one.result.done():
                one.result.set_result(Translated(result, report.status.checkpoint))
        metrics, name = self._metrics, self.name
        metrics.batch_seconds.labels(name).observe(time.monotonic() - began)
        metrics.batch_sentences.labels(name).observe(len(sentences))
        metrics.batch_tokens.labels(name).observe(sentences[-1].tokens * len(sentences))

    def _repeat(self, sentences: Sequence[Sentence]) -> None:
        """Put the sentences of a lost replica's batch back into the queue."""
        self._metrics.lost_batches.labels(self.name).inc()
        lost = f"{MAX_LOSSES} replicas were lost while they translated sentence"
        for one in sentences:
            one.losses += 1
            if one.losses >= MAX_LOSSES:
                what = f"{lost} {one.position + 1}: retry later"
                one.fail(RefusedError(503, "failed", what, one.position))
        self._waiting.add(sentences)
        self._arrived.set()


def _check_numbers(request: TranslateRequest, most: Limits) -> None:
    """Check a request's number of sentences and its `n_best`.

    Raises:
        RefusedError: a number exceeds its limit.
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
