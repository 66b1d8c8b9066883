"""Registry of the launchers, and their interface.

    recipe, options ──launcher──▶ a text for its scheduler ──▶ printed, written, or submitted

A launcher starts nothing itself. To add a launcher, write its class in a module, add its name here,
and add a command of `transloom deploy` for its options.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cluster.errors import ClusterError
from foundation.registry import Registry


@dataclass(frozen=True)
class Launch:
    """Script or manifests with which a scheduler trains runs.

    Attributes:
        what: what the text describes, for messages, such as "the job".
        text: the script, or the manifests.
        values: the values that `--json` prints.
    """

    what: str
    text: str
    values: Mapping[str, object]


class Launcher(ABC):
    """Launcher for a scheduler, with the options of one call.

    Attributes:
        submission: the command that submits a file with the text, which is its last argument.
    """

    submission: ClassVar[tuple[str, ...]]

    @abstractmethod
    def launch(self, recipe_file: Path, overrides: Sequence[str], run: Path | None) -> Launch:
        """Return the text for a recipe.

        Args:
            run: folder or URL of the run; None for the launcher's default.

        Raises:
            RecipeError: the recipe, or an option, is invalid for this scheduler.
            ClusterError: the scheduler cannot run it from this folder.
        """


def check_encodable(text: str) -> None:
    """Check that a script or manifest can be encoded as UTF-8; its paths may contain other bytes.

    Raises:
        ClusterError: the text cannot be encoded.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 60) : error.end + 20]
        raise ClusterError(
            f"A path or an override has bytes that are not UTF-8, in {around!r}: rename the folder "
            "or file of the path, or write the override in UTF-8"
        ) from error


LAUNCHERS: Registry[Callable[..., Launcher]] = Registry("launcher", "deploy")
LAUNCHERS.register("slurm", "cluster.launchers.slurm:SlurmLauncher")
LAUNCHERS.register("kubernetes", "cluster.launchers.kubernetes:KubernetesLauncher")
