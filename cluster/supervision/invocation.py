"""What the user has typed and which code that runs, for start.json, W&B and whoever repeats it.

A job's driver runs elsewhere, and has what was typed at `transloom submit` from its environment.
"""

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version

from cluster.packages import INSTALLATION
from foundation.location import without_credentials
from trainer.runs.start import MAX_CHARACTERS, Code, Invocation, Start

# In the environment of a job's driver: an `Invocation` as JSON.
VARIABLE = "TRANSLOOM_INVOCATION"
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
# Without what the checkout's own settings might start; and in the environment, without writing.
GIT = ("git", "-c", "core.fsmonitor=false")
STATUS = ("--porcelain=v2", "--branch", "--untracked-files=no")
GIT_SECONDS = 5.0  # a checkout on a slow disk is not waited for


def current_invocation() -> Invocation:
    """What the user has typed: here, or where this job was submitted."""
    if given := os.environ.get(VARIABLE):
        try:
            return Invocation.model_validate_json(given)
        except ValueError:  # another version's
            return Invocation()
    return Invocation(command=_command(sys.argv), project=code_of(Path.cwd()))


def as_variable(invocation: Invocation) -> dict[str, str]:
    """The same for the environment of a process that acts for the user."""
    return {VARIABLE: invocation.model_dump_json()}


def current_start() -> Start:
    """What a run is started with here and now."""
    # An installed transloom may lie in the checkout of somebody's project.
    code = code_of(INSTALLATION) if (INSTALLATION / ".git").exists() else None
    return Start(
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        invocation=current_invocation(),
        code=code,
        versions={"python": python_version(), **_versions()},
    )


def code_of(folder: Path) -> Code | None:
    """The state of the git checkout that a folder lies in; None if it cannot be told."""
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
    """A command line of ours as it can be typed again; None if it is none."""
    if Path(argv[0]).name != "transloom":
        return None
    return without_credentials(shlex.join(["transloom", *argv[1:]]))[:MAX_CHARACTERS]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # transloom in a folder of sources
            continue
    return found
