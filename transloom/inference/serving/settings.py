"""Settings of a server."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transloom.inference.decoding_options import OF_THE_RECIPE, DecodingOptions

# The checkpoint to load when a newer one is complete.
Follow = Literal["newest", "best", "average", "nothing"]


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of all requests together.

    Attributes:
        request_bytes: of its body.
        sentences: of one request.
        n_best: translations of a sentence.
        waiting_sentences: of all requests to a run; more are refused with 429.
        timeout_seconds: from a request's arrival to its response.
        max_tokens: of a sentence, with tag and EOS, or None for the maximum of the run's training.
    """

    request_bytes: int = 1_000_000
    sentences: int = 256
    n_best: int = 16
    waiting_sentences: int = 4096
    timeout_seconds: float = 60.0
    max_tokens: int | None = None


@dataclass(frozen=True)
class Batching:
    """Batching of sentences of several requests.

    Attributes:
        tokens: of a batch, padding included: rows times the longest row. A single sentence may have
            more.
        wait_seconds: maximum time that a sentence waits for others while a replica is free.
    """

    tokens: int = 2048
    wait_seconds: float = 0.005


@dataclass(frozen=True)
class ReplicaSettings:
    """Settings of each replica of a run.

    Attributes:
        run: the run's folder, absolute.
        checkpoint: a fixed step or average, or None to use `follow`.
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
    """Options of `transloom serve`.

    Attributes:
        runs: settings of the served runs, by name.
        replicas: of each run.
        address: HOST:PORT of a Ray cluster's head, or `auto`; None for an embedded Ray.
        token: required from clients, or None for access without authentication.
    """

    runs: dict[str, ReplicaSettings]
    replicas: int = 1
    address: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
