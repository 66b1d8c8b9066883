"""Messages between the server and its replicas: batches of sentences, and their translations."""

from dataclasses import dataclass

from transloom.inference.serving.batch_queue import RequestedSearch

Pairs = tuple[tuple[int, int], ...]  # of a source word and a word of the translation, from 0


@dataclass(frozen=True)
class Batch:
    """Sentences with one search for all; an empty batch requests only the replica's status."""

    search: RequestedSearch
    texts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Translations of a sentence as (text, score, alignment), or its problem."""

    translations: tuple[tuple[str, float, Pairs | None], ...] = ()
    problem: str | None = None
    kind: str | None = None  # see `messages.ProblemKind`


@dataclass(frozen=True)
class ReplicaStatus:
    """Status of a replica.

    Attributes:
        process: identifies the replica.
        checkpoint: the name of the checkpoint folder that it translates with.
        changes: the number of checkpoint changes since its start.
        damaged: the faults of checkpoints that it refused.
    """

    process: str
    checkpoint: str
    step: int
    changes: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class BatchAnswer:
    """Results of a batch, in the order of its sentences."""

    found: tuple[Found, ...]
    current_status: ReplicaStatus
