"""Ray actors that translate chunks of lines, and the scheduler that assigns chunks to them.

An actor has no state except the weights, and a chunk's output depends only on the chunk. If an
actor dies, only the work on its current chunks is lost: a new actor is started, and these chunks
are translated again.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.errors import ClusterError, EmbeddedRayError
from cluster.health.watchdog import HeartbeatSender, Watchdog
from cluster.ray.embedded import embedded_ray_is_lost
from cluster.ray.environment_file import read_environment
from foundation.errors import DataError
from foundation.wording import counted
from model.config.transformer import DecodingConfig
from model.errors import ModelError
from trainer.checkpoints.checkpoint import sha256_of
from trainer.checkpoints.format import HEADER
from trainer.errors import RunMismatchError, TrainerError
from trainer.runs.run_url import is_run_url
from transloom.inference.engine_names import Precision
from transloom.inference.searchers import prepare_process
from transloom.inference.translate import LineOptions, lines_of_batch
from transloom.inference.translator import Translator

# Number of actors that may die while they translate one chunk. After one more, the command fails.
MAX_CHUNK_FAILURES = 3
# Number of chunks assigned to an actor: the one that it translates, and the next one, so that the
# actor never waits for the driver.
CHUNKS_AHEAD = 2
POLL_SECONDS = 5.0  # maximum wait for a result between two checks of Ray
POLLS_BEFORE_NOTICE = 12  # polls without a result before missing actors are reported


@dataclass(frozen=True)
class TranslatorOrigin:
    """Description of a translator, from which an actor loads it.

    Attributes:
        runs: (folder or URL, checkpoint, sha256 of checkpoint.json) of each run. Several runs form
            an ensemble.
        threads: number of compute threads.
    """

    runs: tuple[tuple[str, str, str], ...]
    decoding: DecodingConfig
    precision: Precision
    device: str
    threads: int

    def load(self) -> Translator:
        """Load the translator.

        Raises:
            RunMismatchError: a run folder does not exist on this node, or has another checkpoint.
        """
        prepare_process(self.threads)
        runs = [(_folder_of(run), checkpoint) for run, checkpoint, _ in self.runs]
        translator = Translator.load_ensemble(runs, self.decoding, self.device, self.precision)
        for (_, found), (run, checkpoint, expected) in zip(
            translator.members, self.runs, strict=True
        ):
            if (sha256 := sha256_of(found.path / HEADER)) != expected:
                raise RunMismatchError(
                    f"The checkpoint {checkpoint} of {run} has the sha256 {sha256[:16]}… on an "
                    f"actor's node, but {expected[:16]}… on the command's node. Make the same run "
                    "folder available on all nodes"
                )
        return translator


def _folder_of(run: str) -> Path:
    """Return the folder of a run on this node, which is a copy if `run` is a URL."""
    if not is_run_url(run):
        return Path(run)
    from trainer.runs.remote.pull import run_view  # imports obstore

    return run_view(run)


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})
class LineTranslator:
    """Actor that translates chunks of lines."""

    def __init__(self, origin: TranslatorOrigin, wanted: LineOptions) -> None:
        read_environment()
        self._watchdog = Watchdog()
        self._origin = origin
        self._wanted = wanted
        self._translator: Translator | None = None

    def open(self) -> None:
        """Load the weights."""
        self._translator = self._origin.load()

    def translate(self, lines: list[str]) -> list[str]:
        """Return the output lines for these input lines."""
        assert self._translator is not None, "opened first"
        return lines_of_batch(self._translator, lines, None, self._wanted)

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> None:
        """Record that the driver is alive."""
        self._watchdog.heartbeat()


@dataclass(frozen=True)
class ActorResources:
    """Number of actors, and the resources of each.

    Attributes:
        actors: number of actors, or None to use all free resources of the cluster.
        cpus, gpus: number that Ray reserves for each actor.
    """

    actors: int | None
    cpus: float
    gpus: float


class ChunkScheduler:
    """Scheduler that assigns chunks to actors, in an open Ray session."""

    def __init__(
        self,
        origin: TranslatorOrigin,
        wanted: LineOptions,
        resources: ActorResources,
        tell: Callable[[str], None],
    ) -> None:
        """Determine the number of actors; `results` starts them.

        Raises:
            ClusterError: `resources.actors` is None, and the cluster's free resources do not
                suffice for one actor.
        """
        self._arguments = (origin, wanted)
        self._resources = resources
        self._actor_count = resources.actors or _free_slots(resources)
        self._tell = tell
        self._actors: list[Any] = []
        self._open: list[Any] = []  # actors that have loaded their weights
        # Actor and chunk of each pending result. The chunk is None for the result of `open`.
        self._asked: dict[Any, tuple[Any, int | None]] = {}
        self._deaths: Counter[int] = Counter()

    def results(
        self, chunks: Iterable[int], read: Callable[[int], list[str]]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield each chunk's number and output lines, as soon as the chunk is done.

        Args:
            chunks: numbers of the chunks.
            read: returns the input lines of a chunk.

        Raises:
            ClusterError: several actors died on the same chunk or while they loaded the weights, or
                an actor raised an unexpected error.
            EmbeddedRayError: the Ray that this process started has ended.
            TrainerError, DataError, ModelError: raised by an actor.
        """
        waiting = deque(chunks)
        with HeartbeatSender(lambda: list(self._actors)):
            try:
                for _ in range(min(self._actor_count, len(waiting))):
                    self._start_actor()
                while waiting or any(chunk is not None for _, chunk in self._asked.values()):
                    for answer in self._answers():
                        actor, chunk = self._asked.pop(answer)
                        found = self._collect_result(answer, actor, chunk, waiting)
                        if chunk is not None and found is not None:
                            yield chunk, found
                    for actor in self._open:
                        self._assign(actor, waiting, read)
            finally:
                for actor in () if embedded_ray_is_lost() else self._actors:
                    ray.kill(actor)

    def _answers(self) -> list[Any]:
        """Wait for results, and return the Ray references of those that are ready.

        Return [] if none is ready after a while; missing actors are then reported to the user.

        Raises:
            EmbeddedRayError: the Ray that this process started has ended.
        """
        for _ in range(POLLS_BEFORE_NOTICE):
            answers, _ = ray.wait(list(self._asked), timeout=POLL_SECONDS)
            if embedded_ray_is_lost():
                raise EmbeddedRayError(
                    "Ray is lost on this machine: start the same command again to continue"
                )
            if answers:
                return answers
        self._report_missing_actors()
        return []

    def _start_actor(self) -> None:
        resources = self._resources
        actor = LineTranslator.options(  # type: ignore[attr-defined]
            num_cpus=resources.cpus, num_gpus=resources.gpus
        ).remote(*self._arguments)
        self._actors.append(actor)
        self._asked[actor.open.remote()] = (actor, None)

    def _assign(self, actor: Any, waiting: deque[int], read: Callable[[int], list[str]]) -> None:
        asked = sum(other is actor for other, _ in self._asked.values())
        while waiting and asked < CHUNKS_AHEAD:
            chunk = waiting.popleft()
            self._asked[actor.translate.remote(read(chunk))] = (actor, chunk)
            asked += 1

    def _collect_result(
        self, answer: Any, actor: Any, chunk: int | None, waiting: deque[int]
    ) -> list[str] | None:
        """Return the output lines of a chunk, or None if the answer has no lines.

        The answer has no lines if it is the result of `open`, or if the actor died. After a death,
        the actor's chunk is queued again, and a new actor is started.
        """
        try:
            found: list[str] | None = ray.get(answer)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, (TrainerError, DataError, ModelError)):
                raise cause from error
            raise ClusterError(f"An actor could not translate: {error}") from error
        except RayError as error:  # the actor or its node died, or memory ran out
            if chunk is not None:
                waiting.appendleft(chunk)
            self._replace(actor, chunk, error)
            return None
        if chunk is None:
            self._open.append(actor)
        return found

    def _replace(self, actor: Any, chunk: int | None, error: RayError) -> None:
        blamed = -1 if chunk is None else chunk
        self._deaths[blamed] += 1
        if self._deaths[blamed] > MAX_CHUNK_FAILURES:
            what = "while loading the weights" if chunk is None else f"at chunk {chunk}"
            raise ClusterError(
                f"{counted(self._deaths[blamed], 'actor')} died {what}, most likely for lack of "
                f"memory: {error}. Raise --cpus-per-actor or lower --actors, and start the same "
                "command again to continue"
            ) from error
        if actor in self._actors:  # otherwise its other chunk reported the death
            self._actors.remove(actor)
            self._open = [other for other in self._open if other is not actor]
            self._tell("An actor died; another actor translates its lines")
            self._start_actor()

    def _report_missing_actors(self) -> None:
        if all(chunk is None for _, chunk in self._asked.values()):
            resources = self._resources
            self._tell(
                f"No actor has started in {POLLS_BEFORE_NOTICE * POLL_SECONDS:.0f} s: each needs "
                f"{counted(resources.cpus, 'CPU')} and {counted(resources.gpus, 'GPU')}, and "
                "the cluster does not have these resources free"
            )


def _free_slots(resources: ActorResources) -> int:
    """Return the number of actors for which the cluster's free resources suffice.

    Raises:
        ClusterError: the free resources do not suffice for one actor.
    """
    free, cpus, gpus = ray.available_resources(), resources.cpus, resources.gpus
    needed = {"CPU": cpus, "GPU": gpus}
    slots = min(int(free.get(name, 0) // each) for name, each in needed.items() if each)
    if not slots:
        raise ClusterError(
            f"The cluster has {counted(free.get('CPU', 0.0), 'CPU')} and "
            f"{counted(free.get('GPU', 0.0), 'GPU')} free, "
            f"but an actor needs {counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}. Lower "
            "--cpus-per-actor or --gpus-per-actor, or set --actors to wait for free resources"
        )
    return slots
