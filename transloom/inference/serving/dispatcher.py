"""From the sentences that wait to replicas, and back to the requests that they are part of.

For each replica a task takes a batch, sends it to whichever replica Ray Serve chooses, and takes
the next one when the answer is there. So batches are cut as late as possible, out of all that
waits. A batch whose replica is lost goes back to those that wait; after a few losses its request is
given up. A task that has nothing to do asks now and then how a replica stands.
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
from transloom.inference.serving.settings import Batching, Limits

POLL_SECONDS = 2.0
# A replica that was not heard of for so long is not counted any more.
RECENT_SECONDS = 30.0
MAX_LOSSES = 4
PAUSE_SECONDS = 0.2  # after a loss

logger = logger_of(__name__)

# Sends a batch to a replica.
Ask = Callable[[Batch], Awaitable[BatchAnswer]]


@dataclass(eq=False)
class _Pending:
    """A request that waits for its sentences."""

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
    """The requests to one run.

    Attributes:
        name: the run's, in paths and metrics.
    """

    def __init__(
        self,
        name: str,
        facts: ServedRunFacts,
        ask: Ask,
        replicas: int,
        limits: Limits,
        batching: Batching,
        metrics: ServingMetrics,
    ) -> None:
        self.name = name
        self._facts, self._ask, self._limits, self._metrics = facts, ask, limits, metrics
        self._waiting: SentenceQueue[_Pending] = SentenceQueue(
            batching.tokens, batching.wait_seconds
        )
        self._arriving = 0  # sentences whose tokens are being counted: they take room, too
        self._arrived = asyncio.Event()
        self._replicas = replicas
        self._standings: dict[str, tuple[float, ReplicaStatus]] = {}
        self._under_way: list[float] = []  # when each batch that has no answer yet was sent
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send batches; in the loop that answers requests."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._replicas)]

    async def close(self) -> None:
        """Send no more; whoever still waits is not answered."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def translate(self, request: TranslateRequest) -> tuple[list[Found], list[str]]:
        """What is found for each sentence, and the names of the checkpoints that found it.

        Raises:
            RefusedError: the request asks for too much, or there is no answer in time.
        """
        _check_numbers(request, self._limits)
        self._check_room(len(request.sentences))
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
        finally:  # also if the client has left, or time is up
            self._waiting.drop(pending)
        self._metrics.sentences.labels(self.name).inc(len(counts))
        self._metrics.source_tokens.labels(self.name).inc(sum(counts))
        return [one for one in pending.found if one is not None], pending.checkpoints

    @property
    def steps(self) -> list[int]:
        """The step with which each replica translates that was heard of lately."""
        return [current_status.step for current_status in self._recent_replicas()]

    @property
    def changes(self) -> int:
        """How often the replicas that were heard of lately have taken up another checkpoint."""
        return sum(current_status.changes for current_status in self._recent_replicas())

    def current_status(self) -> ServedRun:
        """How the run stands."""
        lately = self._recent_replicas()
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

    def _recent_replicas(self) -> list[ReplicaStatus]:
        # Whoever has a batch says nothing until it is done.
        since = min([time.monotonic(), *self._under_way]) - RECENT_SECONDS
        return [current_status for at, current_status in self._standings.values() if at >= since]

    def _check_room(self, sentences: int) -> None:
        most = self._limits.waiting_sentences
        waiting = len(self._waiting) + self._arriving
        if waiting + sentences > max(most, sentences) or waiting >= most:
            raise RefusedError(
                429,
                "queue_full",
                f"{counted(waiting, 'sentence')} wait already, of at most {most:,}: "
                "ask again later",
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
        """Ask a replica how it stands."""
        try:
            self._update_replica(
                (await self._ask(Batch(RequestedSearch(None, 1, False, False)))).current_status
            )
        except ReplicaLostError:
            pass  # the next look may find another one
        except Exception:  # a bug: whoever looks sends batches, too
            logger.exception("a replica of %s could not tell how it stands", self.name)

    async def _send(self, sentences: list[Sentence[_Pending]]) -> None:
        began = time.monotonic()
        batch = Batch(
            sentences[0].search,
            tuple(one.text for one in sentences),
            tuple(one.prefix for one in sentences),
        )
        self._under_way.append(began)
        try:
            answer = await self._ask(batch)
        except ReplicaLostError as error:
            await self._lost(sentences, error)
        except Exception:  # a bug, or memory: the next batch may do
            logger.exception("a batch of %s has failed", self.name)
            problem = RefusedError(500, "failed", "these sentences could not be translated")
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
            self._under_way.remove(began)

    async def _lost(self, sentences: list[Sentence[_Pending]], error: ReplicaLostError) -> None:
        logger.warning(
            "a replica of %s was lost with %s: %s",
            self.name,
            counted(len(sentences), "sentence"),
            error,
        )
        self._metrics.lost_batches.labels(self.name).inc()
        self._standings.clear()  # nobody knows which one it was; the others are heard of soon
        again = [one for one in sentences if not one.owner.done.done()]
        for one in again:
            if one.losses + 1 >= MAX_LOSSES:
                one.owner.fail(
                    RefusedError(
                        503,
                        "failed",
                        f"{MAX_LOSSES} replicas were lost over sentence {one.position + 1}",
                        one.position,
                        retry_after_seconds=5,
                    )
                )
        self._waiting.add_again([one for one in again if not one.owner.done.done()])
        self._arrived.set()
        await asyncio.sleep(PAUSE_SECONDS)

    def _update_replica(self, current_status: ReplicaStatus) -> None:
        _, before = self._standings.get(current_status.process, (0.0, None))
        if before is None or before.checkpoint != current_status.checkpoint:
            logger.info("%s translates with %s", self.name, current_status.checkpoint)
        for problem in current_status.damaged:
            if before is None or problem not in before.damaged:
                logger.warning("%s; %s is kept", problem, current_status.checkpoint)
        self._standings[current_status.process] = time.monotonic(), current_status


def _check_numbers(request: TranslateRequest, most: Limits) -> None:
    """Check the numbers of sentences, translations and prefixes of a request.

    Raises:
        RefusedError: too many, or prefixes that are not one for each sentence.
    """
    if len(request.sentences) > most.sentences:
        raise RefusedError(
            413,
            "too_many_sentences",
            f"{counted(len(request.sentences), 'sentence')} in one request, and at most "
            f"{most.sentences:,} are taken: send several requests",
        )
    if request.n_best > most.n_best:
        raise RefusedError(
            400,
            "not_allowed",
            f"n_best is {request.n_best:,}, and at most {most.n_best:,} are given",
        )
    if request.prefixes is not None and len(request.prefixes) != len(request.sentences):
        raise RefusedError(
            400,
            "not_understood",
            f"{counted(len(request.sentences), 'sentence')} and "
            f"{counted(len(request.prefixes), 'prefix')}: "
            'each sentence needs one; "" leaves it free',
        )


def _counted_tokens(request: TranslateRequest, facts: ServedRunFacts) -> list[int]:
    """Return the number of tokens of each sentence, with tag and EOS.

    Raises:
        RefusedError: the run has no such tag, or a sentence has more than it takes.
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
                f"sentence {position + 1} has {tokens:,} tokens, and at most "
                f"{facts.longest:,} are taken: split it",
                position,
            )
    return counts
