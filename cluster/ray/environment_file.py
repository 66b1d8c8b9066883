"""Environment variables that a process reads from a file on its node.

The values are secret, but a job's command, metadata and environment are visible to every user of
the cluster. A job therefore names only the file and the variables. Each process of the job (driver,
ranks, data workers) reads the values on its node.

    # keys.env, mode 0600
    WANDB_API_KEY=0123456789abcdef    # a comment, after a space
    AWS_SECRET_ACCESS_KEY="a value with spaces, = or # in it"
    export PASSWORD='everything between quotes is taken literally: $HOME \\n'

Spaces around a value without quotes are removed. Nothing is expanded, and no character is escaped.
"""

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import ClusterError

# Environment variable of a job's processes: a JSON object with `file`, `names` and `welcome`.
VARIABLE = "TRANSLOOM_ENVIRONMENT_FILE"
MAX_BYTES = 100_000
_COMMENT = re.compile(r"(?:^|\s+)#")
_REST = re.compile(r"\s*(?:#.*)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def file_reference(file: Path, names: Sequence[str], welcome: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment variable that names the file for a job's processes.

    The result contains no values from the file.

    Args:
        names: variables that the processes require; if empty, they read all variables of the file.
        welcome: optional variables, which the processes read if the file has them.
    """
    pointed = {"file": str(file), "names": list(names), "welcome": list(welcome)}
    return {VARIABLE: json.dumps(pointed)}


def read_environment() -> None:
    """Set the variables of the file that this process's environment refers to, if any.

    Raises:
        ClusterError: the file cannot be read, other users can read it, or a required variable is
            neither in the file nor in the environment.
    """
    if VARIABLE not in os.environ:
        return
    wanted = json.loads(os.environ[VARIABLE])
    values = read_file(Path(wanted["file"]))
    names: list[str] = wanted["names"] or list(values)
    for name in [*names, *wanted["welcome"]]:
        if name in values:
            os.environ[name] = values[name]
    require(names, os.environ, Path(wanted["file"]))


def require(names: Sequence[str], values: Mapping[str, str], file: Path | None) -> None:
    """Check that all names have values.

    Args:
        file: the file to mention in the message; None if no file was named.

    Raises:
        ClusterError: some names have no value.
    """
    if missing := [name for name in names if name not in values]:
        where = f"neither in {file} nor" if file else "not"
        raise ClusterError(
            f"{', '.join(missing)}: {where} in the environment of node {os.uname().nodename}. Set "
            f"{'it' if len(missing) == 1 else 'them'} on the node before `ray start`, or use "
            "--env-file PATH to name a file of variables on the node"
        )


def read_file(path: Path) -> dict[str, str]:
    """Return the variables of a file with NAME=VALUE lines, empty lines, and comments.

    Raises:
        ClusterError: the file cannot be read, other users can read it, or a line has another form.
    """
    node = os.uname().nodename
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise ClusterError(
                    f"{path} on node {node} is not a file of variables: it has {status.st_size:,} "
                    f"bytes, expected a regular file of at most {MAX_BYTES:,}"
                )
            text = file.read(MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ClusterError(
            f"{path} cannot be read on node {node}: {error.strerror}. --env-file must name a file "
            "that exists on every node of the run, and that the user who started Ray can read"
        ) from error
    except UnicodeDecodeError as error:
        raise ClusterError(
            f"{path} on node {node} is not UTF-8: {error.reason}. Convert the file to UTF-8"
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ClusterError(
            f"{path} on node {node} holds secrets, but its mode {stat.S_IMODE(status.st_mode):04o} "
            f"gives other users access. Expected mode 0600: run `chmod 600 {path}`"
        )
    return dict(_variables(text, path))


def _variables(text: str, path: Path) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name):
            # The message does not quote the line, because the line may hold a secret value.
            raise ClusterError(f"{path}, line {number} is not of the form NAME=VALUE")
        value = value.strip()
        if value[:1] in ("'", '"'):
            value, end, rest = value[1:].partition(value[0])
            if not end or not _REST.fullmatch(rest):
                raise ClusterError(
                    f"{path}, line {number}: expected nothing but a comment after the closing "
                    f"quote of {name}. Quote the whole value, with the other kind of quotes"
                )
        else:
            value = _COMMENT.split(value, maxsplit=1)[0]
        if "\0" in value:
            raise ClusterError(f"{path}, line {number} holds a NUL, which no variable can contain")
        found.append((name, value))
    return found
