"""Messages between the server and its replicas: batches of sentences, and their translations."""

from dataclasses import dataclass

from transloom.inference.serving.batch_queue import RequestedSearch

Pairs = tuple[tuple[int, int], ...]  # numbers of a source word and of a translated word, from 0


@dataclass(frozen=True)
class Batch:
    """Sentences with the same search options; an empty batch only requests a replica's status.

    Attributes:
        prefixes: the required beginning of each sentence's translation, or "".
    """

    search: RequestedSearch
    texts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Translations of one sentence, or the reason why it has none.

    Attributes:
        translations: (text, score, alignment) of each translation, the best first. The alignment is
            None unless the request asks for alignments.
        problem: None if the sentence was translated.
    """

    translations: tuple[tuple[str, float, Pairs | None], ...] = ()
    problem: str | None = None
    kind: str | None = None  # one of `messages.ProblemKind`; None without a problem


@dataclass(frozen=True)
class ReplicaStatus:
    """Status of a replica.

    Attributes:
        process: identifier of the replica.
        checkpoint: name of the checkpoint folder whose weights the replica uses.
        changes: number of times that the replica has reloaded a checkpoint.
        damaged: problems of the checkpoints that the replica could not load.
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
