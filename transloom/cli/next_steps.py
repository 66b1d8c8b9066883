"""Commands to try next with a trained run; they can be copied into a shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from foundation.extensions import FOLDER_VARIABLE
from trainer.recipe import TrainingRecipe

# Substrings that a task requires in its input. The placeholders of such tasks contain them.
_MARKS = ("[MASK]", " ||| ")
LONGEST_TEXT = 80


def own_command(extension_folder: str | None = None) -> str:
    """Return the beginning of a command line that starts this program again.

    Args:
        extension_folder: the folder of a run's extensions. It must be set as an environment
            variable, because commands do not read it from the run. None for the value of the
            variable in this process, if it is set.

    Returns:
        The assignment of that variable, if any, and the name or path of this program.
    """
    folder = extension_folder or os.environ.get(FOLDER_VARIABLE)
    variable = f"{FOLDER_VARIABLE}={shlex.quote(folder)} " if folder else ""
    command = Path(sys.argv[0])
    if command.name != "transloom" or shutil.which("transloom") == str(command):
        return f"{variable}transloom"
    if command.is_absolute() and command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    return f"{variable}{shlex.quote(str(command))}"


def next_commands(run: Path | str, recipe: TrainingRecipe, sample: str | None) -> dict[str, str]:
    """Return commands that use, score and explain a run, and a command that shows its curves.

    Args:
        run: the run's folder or URL.
        sample: an input of the run's task, such as a sentence of its validation set.
    """
    location = str(run)
    this = own_command(recipe.extension_folder if recipe.extensions else None)
    kind, folder = recipe.kind, shlex.quote(location)
    text = shlex.quote(_usable(sample, kind.placeholder))
    found = {}
    if kind.command:
        use = f"{this} {kind.command} {folder}"
        found["use"] = f"echo {text} | {use}" if kind.command == "translate" else f"{use} {text}"
    scored = "" if getattr(recipe.data, "tests", None) else " --set validation"
    found["evaluate"] = f"{this} evaluate {folder}{scored}"
    if kind.page:
        found["explain"] = f"{this} explain {folder} {text}"
    parent = location.rpartition("/")[0] or "."
    found["curves"] = f"{this} dashboard {shlex.quote(parent)}"
    return found


def _usable(sample: str | None, placeholder: str) -> str:
    """Return the sample if it suits a shell line and the task's command, else the placeholder."""
    if (
        sample
        and sample.isprintable()
        and len(sample) <= LONGEST_TEXT
        and not sample.startswith("-")
        and all(mark in sample for mark in _MARKS if mark in placeholder)
    ):
        return sample
    return placeholder
