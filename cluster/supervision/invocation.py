"""The user's command line and the version of the code, for the run's status, W&B and jobs.

The driver of a job runs on the cluster. It reads the command line of `transloom submit` from its
environment.
"""

import getpass
import os
import re
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version

from cluster.errors import ClusterError
from cluster.packages import INSTALLATION
from cluster.recipe import Recipe
from foundation.file_model import error_summary
from foundation.location import without_credentials
from run_store.start import MAX_CHARACTERS, MAX_PRIORITY, Claim, Code, Invocation, Start

# Environment variables of a job's driver. The first one has an `Invocation` as JSON.
VARIABLE = "TRANSLOOM_INVOCATION"
JOB_VARIABLE = "TRANSLOOM_JOB"  # the job's id
CLAIM_VARIABLE = "TRANSLOOM_CLAIM"  # a `Claim` as JSON
PACKAGES = (
    "transloom",
    "torch",
    "deepspeed",
    "ray",
    "numpy",
    "sentencepiece",
    "sacrebleu",
    "wandb",
)
# Prevent git from starting programs that the checkout's settings name. With the environment that
# `code_of` sets, git also writes nothing.
GIT = ("git", "-c", "core.fsmonitor=false")
STATUS = ("--porcelain=v2", "--branch", "--untracked-files=no")
GIT_SECONDS = 5.0  # a slow disk must not delay the start


def current_invocation() -> Invocation:
    """Return the user's invocation: this command or, in a job, the command that submitted it."""
    if given := os.environ.get(VARIABLE):
        try:
            return Invocation.model_validate_json(given)
        except ValueError:  # written by another version
            return Invocation()
    return Invocation(command=_command(sys.argv), project=code_of(Path.cwd()))


def current_claim() -> Claim:
    """Return the claim of this process's job or, without a job, the default one of this user."""
    try:
        return Claim.model_validate_json(os.environ.get(CLAIM_VARIABLE, ""))
    except ValueError:  # no job, or one of another version
        return Claim(owner=current_user())


def claim_of(recipe: Recipe, owner: str, priority: int) -> Claim:
    """Return the claim of a recipe's job to a share of the cluster.

    Raises:
        ClusterError: the owner or the priority is invalid.
    """
    try:
        return Claim(
            owner=owner,
            priority=priority,
            tags=recipe.tracking.tags,
            weight=recipe.cluster.share_weight,
            fixed=recipe.cluster.share == "fixed",
        )
    except ValueError as error:
        raise ClusterError(
            f"--owner {owner!r} with --priority {priority} cannot be used: {error_summary(error)}. "
            "An owner has up to 100 letters, digits, spaces and _.@+-, and begins with a letter, a "
            f"digit or _; a priority is a number from 0 to {MAX_PRIORITY}"
        ) from error


def current_user() -> str:
    """Return USER@HOST, in characters that an owner's name may have."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no name here
        user = str(os.getuid())
    text = re.sub(r"[^A-Za-z0-9_.@+ -]", "-", f"{user}@{socket.gethostname()}")[:100]
    return text if text[0].isalnum() else f"_{text[:99]}"


def as_variable(invocation: Invocation) -> dict[str, str]:
    """Return the environment variable that passes an invocation to another process."""
    return {VARIABLE: invocation.model_dump_json()}


def current_start() -> Start:
    """Return the record of a start of the run: this process, its code and the current time."""
    return Start(
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        invocation=current_invocation(),
        job=os.environ.get(JOB_VARIABLE, "")[:MAX_CHARACTERS] or None,
        claim=current_claim(),
        code=own_code(),
        versions={"python": python_version(), **_versions()},
    )


def own_code() -> Code | None:
    """Return the state of transloom's own checkout, or None if transloom is installed."""
    # An installed transloom may be inside the checkout of another project.
    return code_of(INSTALLATION) if (INSTALLATION / ".git").exists() else None


def code_of(folder: Path) -> Code | None:
    """Return the state of the git checkout that contains a folder, or None if it is unknown."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*GIT, "-C", str(folder), "status", *STATUS],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
        lines = done.stdout.splitlines()
        commit = next(line for line in lines if line.startswith("# branch.oid ")).split()[-1]
        return Code(commit=commit, dirty=any(not line.startswith("#") for line in lines))
    except (OSError, subprocess.SubprocessError, StopIteration, ValueError):
        return None


def _command(argv: list[str]) -> str | None:
    """Return the command line, quoted for a shell, or None if the program is not transloom."""
    if Path(argv[0]).name != "transloom":
        return None
    return without_credentials(shlex.join(["transloom", *argv[1:]]))[:MAX_CHARACTERS]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # transloom runs from a source folder
            continue
    return found
