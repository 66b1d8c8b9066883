"""Messages between the server and its replicas: batches of sentences, and their translations."""

from dataclasses import dataclass

from transloom.inference.serving.batch_queue import RequestedSearch

Pairs = tuple[tuple[int, int], ...]  # of a source word and a word of the translation, from 0


@dataclass(frozen=True)
class Batch:
    """Sentences that are searched in the same way; an empty batch asks for the standing only."""

    search: RequestedSearch
    texts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The translations of a sentence as (text, score, alignment), or its problem."""

    translations: tuple[tuple[str, float, Pairs | None], ...] = ()
    problem: str | None = None
    kind: str | None = None  # see `messages.ProblemKind`


@dataclass(frozen=True)
class ReplicaStatus:
    """The state of a replica.

    Attributes:
        process: identifies the replica.
        checkpoint: the name of the folder whose weights it translates with.
        changes: the number of checkpoints that it has changed to.
        damaged: the faults of checkpoints that it refused.
    """

    process: str
    checkpoint: str
    step: int
    changes: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class BatchAnswer:
    """The results of a batch, in the order of its sentences."""

    found: tuple[Found, ...]
    current_status: ReplicaStatus
