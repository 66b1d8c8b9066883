"""Ray actors that translate chunks of lines, and the assignment of chunks to them.

An actor has no state except the weights, and a chunk's output depends only on the chunk. If an
actor dies, only the work on its current chunks is lost: Ray starts it again, perhaps on another
node, and repeats its calls.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.errors import ClusterError, EmbeddedRayError
from cluster.ray.embedded import embedded_ray_is_lost
from cluster.ray.environment_file import read_environment
from foundation.errors import DataError
from foundation.wording import counted
from model.config.transformer import DecodingConfig
from model.errors import ModelError
from run_store.checkpoints.checkpoint import sha256_of
from run_store.checkpoints.format import HEADER
from run_store.errors import RunError, RunMismatchError
from run_store.remote.local_copy import local_copy
from transloom.inference.engine_names import Precision
from transloom.inference.searchers import prepare_process
from transloom.inference.translate import LineOptions, lines_of_batch
from transloom.inference.translator import Translator

# Maximum number of actors' deaths while they translate one chunk. After another, the command fails.
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
        runs = [(local_copy(run), checkpoint) for run, checkpoint, _ in self.runs]
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


@ray.remote(max_restarts=-1, max_task_retries=MAX_CHUNK_FAILURES)
class LineTranslator:
    """Actor that translates chunks of lines; Ray restarts a dead actor and repeats its calls."""

    def __init__(self, origin: TranslatorOrigin, wanted: LineOptions) -> None:
        read_environment()
        self._origin = origin
        self._wanted = wanted
        self._translator: Translator | None = None

    def open(self) -> None:
        """Load the weights."""
        self._translator = self._origin.load()

    def translate(self, lines: list[str]) -> list[str]:
        """Return the output lines for these input lines."""
        if self._translator is None:  # `open` was not called, because Ray has restarted the actor
            self.open()
        assert self._translator is not None
        return lines_of_batch(self._translator, lines, None, self._wanted)


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


def translate_chunks(
    origin: TranslatorOrigin,
    wanted: LineOptions,
    resources: ActorResources,
    chunks: Iterable[int],
    read: Callable[[int], list[str]],
    tell: Callable[[str], None],
) -> Generator[tuple[int, list[str]], None, None]:
    """Yield each chunk's number and output lines, as soon as an actor has translated it.

    Args:
        chunks: numbers of the chunks.
        read: returns the input lines of a chunk.
        tell: receives a message if no actor starts.

    Raises:
        ClusterError: the free resources do not suffice for one actor, actors died several times
            with one chunk or while they loaded the weights, or an actor raised an unexpected error.
        EmbeddedRayError: the Ray that this process started has ended.
        RunError, DataError, ModelError: raised by an actor.
    """
    waiting = deque(chunks)
    count = min(resources.actors or _free_slots(resources), len(waiting))
    options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    actors = [
        LineTranslator.options(**options).remote(origin, wanted)  # type: ignore[attr-defined]
        for _ in range(count)
    ]
    # The actor and the chunk of each pending result; the chunk is None for the result of `open`.
    pending: dict[Any, tuple[Any, int | None]] = {
        actor.open.remote(): (actor, None) for actor in actors
    }
    try:
        while waiting or any(chunk is not None for _, chunk in pending.values()):
            for answer in _answers(pending, resources, tell):
                actor, chunk = pending.pop(answer)
                lines = _result_of(answer, chunk)
                for _ in range(CHUNKS_AHEAD if chunk is None else 1):
                    if waiting:
                        upcoming = waiting.popleft()
                        pending[actor.translate.remote(read(upcoming))] = (actor, upcoming)
                if chunk is not None:
                    yield chunk, lines
    finally:
        for actor in () if embedded_ray_is_lost() else actors:
            ray.kill(actor)


def _answers(
    pending: Mapping[Any, tuple[Any, int | None]],
    resources: ActorResources,
    tell: Callable[[str], None],
) -> list[Any]:
    """Wait for results, and return the Ray references of those that are ready.

    Return [] if none is ready after a while; missing actors are then reported to the user.

    Raises:
        EmbeddedRayError: the Ray that this process started has ended.
    """
    for _ in range(POLLS_BEFORE_NOTICE):
        answers, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        if embedded_ray_is_lost():
            raise EmbeddedRayError(
                "Ray is lost on this machine: start the same command again to continue"
            )
        if answers:
            return answers
    if all(chunk is None for _, chunk in pending.values()):
        tell(
            f"No actor has started in {POLLS_BEFORE_NOTICE * POLL_SECONDS:.0f} s: each needs "
            f"{counted(resources.cpus, 'CPU')} and {counted(resources.gpus, 'GPU')}, and "
            "the cluster does not have these resources free"
        )
    return []


def _result_of(answer: Any, chunk: int | None) -> list[str]:
    """Return the output lines of a chunk; [] for the result of `open`."""
    try:
        return ray.get(answer) or []
    except RayTaskError as error:
        if isinstance(error.cause, (RunError, DataError, ModelError)):
            raise error.cause from error
        raise ClusterError(f"An actor could not translate: {error}") from error
    except RayError as error:  # the actor died repeatedly, or memory ran out
        what = "while loading the weights" if chunk is None else f"at chunk {chunk}"
        raise ClusterError(
            f"An actor died {MAX_CHUNK_FAILURES + 1} times {what}, most likely for lack of "
            f"memory: {error}. Raise --cpus-per-actor or lower --actors, and start the same "
            "command again to continue"
        ) from error


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
