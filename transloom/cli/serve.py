"""Command `transloom serve`: serve the translations of runs over HTTP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import ClusterError
from foundation.shown_urls import url_of
from foundation.terminal import print_line, warn
from transloom.cli.options import (
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    PenaltyOption,
    PrecisionOption,
    runs_argument,
)
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine
from transloom.inference.serving.settings import (
    Batching,
    Follow,
    Limits,
    ReplicaSettings,
    ServingSettings,
)

TOKEN_BYTES = 1_000
MIN_CHARACTERS = 16  # minimum length of a token


def serve(
    runs: Annotated[
        list[Path],
        runs_argument(
            help="Folders or URLs of the runs. Each run is served under the name of its folder."
        ),
    ],
    replicas: Annotated[
        int, typer.Option(min=1, help="Number of replicas of each run; each replica is a process.")
    ] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="Number of CPU cores for each replica.")] = 1,
    follow: Annotated[
        Follow,
        typer.Option(
            help="Checkpoint to serve while training goes on: the newest one, the best one, the "
            "latest average, or nothing to keep the first one."
        ),
    ] = "newest",
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    precision: PrecisionOption = "fp32",
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port to listen on. Default: 8644, or the next free port."
        ),
    ] = None,
    token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the bearer token that each request must send."
        ),
    ] = None,
    batch_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            help="Maximum number of tokens of a batch, including padding: the number of sentences "
            "times the length of the longest one.",
        ),
    ] = 2048,
    wait_milliseconds: Annotated[
        float,
        typer.Option(
            min=0,
            max=10_000,
            help="Maximum time, in milliseconds, that a sentence waits for others to share its "
            "batch.",
        ),
    ] = 5.0,
    max_sentences: Annotated[
        int, typer.Option(min=1, help="Maximum number of sentences in a request.")
    ] = 256,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Maximum number of tokens of a sentence. Default: the maximum in the run's "
            "training.",
        ),
    ] = None,
    max_bytes: Annotated[
        int, typer.Option(min=100, help="Maximum size of a request's body, in bytes.")
    ] = (1_000_000),
    max_waiting: Annotated[
        int,
        typer.Option(
            min=1,
            help="Maximum number of sentences that wait for a run. Further requests get HTTP "
            "status 429.",
        ),
    ] = 4096,
    timeout_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Time limit for a request, in seconds.")
    ] = 60.0,
) -> None:
    """Serve translations over HTTP: an API, a web page and metrics.

    The server translates sentences of concurrent requests in shared batches. --follow selects the
    new checkpoints that the server switches to.

    Examples:

      transloom serve runs/phrasebook

      transloom serve runs/ende runs/enfr --replicas 2 --follow best --port 8700
    """
    from transloom.inference.serving.server import serve_runs

    limits = Limits(
        request_bytes=max_bytes,
        sentences=max_sentences,
        waiting_sentences=max_waiting,
        timeout_seconds=timeout_seconds,
    )
    decoding = DecodingOptions(
        beam_size, length_penalty, precision=precision, engine=engine, compute_type=compute_type
    )
    of_each = {
        name: ReplicaSettings(
            run=run,
            url=url_of(run),
            checkpoint=checkpoint,
            follow=follow,
            decoding=decoding,
            cpus=cpus,
            max_tokens=max_tokens,
        )
        for name, run in _served_runs(runs).items()
    }
    settings = ServingSettings(
        runs=of_each,
        replicas=replicas,
        host=host,
        port=port,
        token=None if token is None else _token_of(token),
        limits=limits,
        batching=Batching(batch_tokens, wait_milliseconds / 1000),
    )
    serve_runs(settings, print_line=print_line, warn=warn)


def _served_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """Return the runs by the names of their folders, under which they are served.

    Raises:
        ClusterError: two runs have the same name.
    """
    found: dict[str, Path] = {}
    for run in runs:
        path = run.resolve()
        if path.name in found:
            raise ClusterError(
                f"{found[path.name]} and {path} would both be served as {path.name}: rename one "
                "folder, or start a separate server for each run"
            )
        found[path.name] = path
    return found


def _token_of(file: Path) -> str:
    """Return the token that a file contains.

    Raises:
        ClusterError: the file cannot be read, or its token is too short or not valid in a header.
    """
    from data_pipeline.storage.regular_files import read_regular

    try:
        token = read_regular(file, TOKEN_BYTES).decode().strip()
    except (OSError, ValueError) as error:
        raise ClusterError(f"Cannot read the token in {file}: {error}") from error
    if len(token) < MIN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise ClusterError(
            f"{file} has no token of at least {MIN_CHARACTERS} printable ASCII characters; create "
            f"one with: openssl rand -hex 32 > {file}"
        )
    return token
