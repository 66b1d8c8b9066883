"""What is named on the command line, checked."""

from collections.abc import Sequence
from pathlib import Path

from cluster.errors import ClusterError
from data_pipeline.storage.regular_files import read_regular

TOKEN_BYTES = 1_000
LEAST_CHARACTERS = 16


def served_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """The runs by the names under which they are served: those of their folders.

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


def token_of(file: Path) -> str:
    """The token that stands in a file.

    Raises:
        ClusterError: it cannot be read, or it is too short, or no header can carry it.
    """
    try:
        token = read_regular(file, TOKEN_BYTES).decode().strip()
    except (OSError, ValueError) as error:
        raise ClusterError(f"The token in {file} cannot be read: {error}") from error
    if len(token) < LEAST_CHARACTERS or not token.isascii() or not token.isprintable():
        raise ClusterError(
            f"{file} holds no token of {LEAST_CHARACTERS} characters or more that can be typed; "
            f"make one with: openssl rand -hex 32 > {file}"
        )
    return token
