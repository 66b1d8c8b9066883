"""Settings of a server."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transloom.inference.decoding_options import OF_THE_RECIPE, DecodingOptions

# Checkpoint that replicas load as soon as it is complete: the newest one, the one with the best
# score, or the newest average. With `nothing`, the first checkpoint is kept.
Follow = Literal["newest", "best", "average", "nothing"]


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of all requests together.

    Attributes:
        request_bytes: maximum size of a request's body.
        sentences: maximum sentences of one request.
        n_best: maximum translations per sentence.
        waiting_sentences: maximum waiting sentences of all requests to a run; requests that would
            exceed it are refused with status 429.
        timeout_seconds: maximum time from a request's arrival to its response.
    """

    request_bytes: int = 1_000_000
    sentences: int = 256
    n_best: int = 16
    waiting_sentences: int = 4096
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Batching:
    """Options for forming batches from the sentences of several requests.

    Attributes:
        tokens: maximum size of a batch: rows times the tokens of the longest row. A batch with a
            single sentence may be larger.
        wait_seconds: maximum time that a sentence waits for other sentences of its batch while a
            replica is free.
    """

    tokens: int = 2048
    wait_seconds: float = 0.005


@dataclass(frozen=True)
class ReplicaSettings:
    """Settings of each replica of a run.

    Attributes:
        run: absolute path of the run folder.
        url: URL of the run if it is in an object store, so that `run` is this machine's copy.
        checkpoint: a step or the name of an average; this checkpoint is never replaced. None to use
            `follow`.
        decoding: options for all requests, except `n_best`, which each request sets.
        cpus: number of compute threads.
        max_tokens: maximum tokens of a sentence, with tag and EOS, or None for the maximum that the
            run was trained on.
        look_seconds: interval between two checks for newer checkpoints.
        hang_seconds: maximum time for a batch, and for the start of a replica. A replica that takes
            longer is replaced.
    """

    run: Path
    checkpoint: str | None = None
    follow: Follow = "newest"
    decoding: DecodingOptions = OF_THE_RECIPE
    cpus: int = 1
    max_tokens: int | None = None
    look_seconds: float = 2.0
    hang_seconds: float = 300.0
    url: str | None = None


@dataclass(frozen=True)
class ServingSettings:
    """Options of `transloom serve`.

    Attributes:
        runs: settings of the served runs, by name.
        replicas: number of replicas of each run.
        token: token that clients must send, or None for access without authentication.
    """

    runs: dict[str, ReplicaSettings]
    replicas: int = 1
    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
