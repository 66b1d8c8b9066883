"""`transloom serve`: runs that translate for others, over HTTP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.errors import ClusterError
from cluster.terminal import print_line, warn
from transloom.cli.completion import run_folders
from transloom.cli.options import (
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    PenaltyOption,
    PrecisionOption,
)
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine

TOKEN_BYTES = 1_000
MIN_CHARACTERS = 16  # of a token


def serve(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Runs' folders; each is served under its name.",
            autocompletion=run_folders,
        ),
    ],
    replicas: Annotated[int, typer.Option(min=1, help="Processes for each run.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of each replica.")] = 1,
    follow: Annotated[
        Literal["newest", "best", "average", "nothing"],
        typer.Option(help="Which checkpoint is taken up as soon as there is another one."),
    ] = "newest",
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    precision: PrecisionOption = "fp32",
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
    host: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 8644, or the next one that is free."),
    ] = None,
    token: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Whoever asks has to send what stands in this file."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of a Ray cluster's head, or auto. Default: a Ray of its own."),
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Of a batch, padding included: rows times the longest.")
    ] = 2048,
    wait_milliseconds: Annotated[
        float, typer.Option(min=0, max=10_000, help="How long a sentence waits for company.")
    ] = 5.0,
    max_sentences: Annotated[int, typer.Option(min=1, help="Of one request.")] = 256,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Of a sentence. Default: what the run was trained on."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=100, help="Of a request's body.")] = 1_000_000,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Sentences of a run that wait; more are told to come again.")
    ] = 4096,
    timeout_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="For each request.")
    ] = 60.0,
) -> None:
    """Translate for others over HTTP, with Ray Serve: requests, a page, metrics.

    Sentences of all requests share batches, and newer checkpoints are taken up. Examples:

      transloom serve runs/phrasebook

      transloom serve runs/ende runs/enfr --replicas 2 --follow best --port 8700
    """
    from transloom.inference.serving.serve import serve_runs
    from transloom.inference.serving.settings import (
        Batching,
        Limits,
        ReplicaSettings,
        ServingSettings,
    )

    limits = Limits(
        request_bytes=max_bytes,
        sentences=max_sentences,
        waiting_sentences=max_waiting,
        timeout_seconds=timeout_seconds,
        max_tokens=max_tokens,
    )
    decoding = DecodingOptions(
        beam_size, length_penalty, precision=precision, engine=engine, compute_type=compute_type
    )
    of_each = {
        name: ReplicaSettings(
            run=run,
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
        address=address,
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
        ClusterError: two have the same name.
    """
    found: dict[str, Path] = {}
    for run in runs:
        path = run.resolve()
        if path.name in found:
            raise ClusterError(
                f"{found[path.name]} and {path} would both be served as {path.name}: serve one of "
                "them by a server of its own, or rename its folder"
            )
        found[path.name] = path
    return found


def _token_of(file: Path) -> str:
    """Return the token that a file holds.

    Raises:
        ClusterError: it cannot be read, or it is too short, or no header can carry it.
    """
    from data_pipeline.storage.regular_files import read_regular

    try:
        token = read_regular(file, TOKEN_BYTES).decode().strip()
    except (OSError, ValueError) as error:
        raise ClusterError(f"The token in {file} cannot be read: {error}") from error
    if len(token) < MIN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise ClusterError(
            f"{file} holds no token of {MIN_CHARACTERS} characters or more that can be typed; "
            f"make one with: openssl rand -hex 32 > {file}"
        )
    return token
