"""What a server is started with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transloom.inference.decoding_options import OF_THE_RECIPE, DecodingOptions

# The checkpoint to load when a newer one is complete.
Follow = Literal["newest", "best", "average", "nothing"]


@dataclass(frozen=True)
class Limits:
    """What a request, and all requests together, may ask for.

    Attributes:
        request_bytes: of its body.
        sentences: of one request.
        n_best: translations of a sentence.
        waiting_sentences: of all requests to a run; more are refused with 429.
        timeout_seconds: from a request's arrival to its answer.
        max_tokens: of a sentence, with tag and EOS; None: as many as the run was trained on.
    """

    request_bytes: int = 1_000_000
    sentences: int = 256
    n_best: int = 16
    waiting_sentences: int = 4096
    timeout_seconds: float = 60.0
    max_tokens: int | None = None


@dataclass(frozen=True)
class Batching:
    """How sentences of several requests share a batch.

    Attributes:
        tokens: of a batch, padding included: rows times the longest row. One sentence may have
            more.
        wait_seconds: how long a sentence waits at most for others while a replica is free.
    """

    tokens: int = 2048
    wait_seconds: float = 0.005


@dataclass(frozen=True)
class ReplicaSettings:
    """Settings of each replica of a run.

    Attributes:
        run: the run's folder, absolute.
        checkpoint: a fixed step or average; None: as `follow` says.
        decoding: options for all requests; each request has its own `n_best`.
        cpus: threads that compute.
        max_tokens: as in `Limits`.
        look_seconds: interval between two checks for newer checkpoints.
        hang_seconds: a replica whose batch takes longer is replaced.
    """

    run: Path
    checkpoint: str | None = None
    follow: Follow = "newest"
    decoding: DecodingOptions = OF_THE_RECIPE
    cpus: int = 1
    max_tokens: int | None = None
    look_seconds: float = 2.0
    hang_seconds: float = 300.0


@dataclass(frozen=True)
class ServingSettings:
    """Everything that `transloom serve` was told.

    Attributes:
        runs: what is served, by name.
        replicas: of each run.
        address: HOST:PORT of a Ray cluster's head, or `auto`; None: an embedded Ray.
        token: who has it gets in; None: whoever reaches the server.
    """

    runs: dict[str, ReplicaSettings]
    replicas: int = 1
    address: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
