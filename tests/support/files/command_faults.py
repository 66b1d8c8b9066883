"""Jobs for a `FaultServer`: commands that create a folder, struck at every file operation."""

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from cluster.recipe import load_recipe
from foundation.folder_lock import leftovers
from support.files.file_faults import ENDED, Fault, struck_child
from support.records.checkpoints import make_header, save_checkpoint
from trainer.checkpoints.averaging import average
from trainer.zero.fragment import Fragment
from transloom.cli.corpus_files import files_named
from transloom.cli.new_recipe import write_recipe

PAIRS = 40


class Init:
    """`transloom init` of two files, whose pairs it divides."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "my.yaml"
        for name in ("a.fr", "a.en"):
            (folder / name).write_text("".join(f"{name} word {n} and more\n" for n in range(PAIRS)))
        self.files = files_named(folder / "a.fr", folder / "a.en", None, (None, None))

    def run(self) -> None:
        write_recipe(self.path, self.files)

    def has_finished(self) -> bool:
        """Whether nothing but a finished call is left, which overwrites nothing."""
        return self.path.exists() and not leftovers(self.path)

    def check(self) -> None:
        assert load_recipe(self.path).name == "my"
        folder = self.path.parent / "my-corpus"
        lines = [len((folder / f"{use}.fr").read_text().splitlines()) for use in USES]
        assert sum(lines) == PAIRS


USES = ("train", "validation")


class Average:
    """`transloom checkpoints average` of two checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir()
        self.averaged = [
            save_checkpoint(
                self.checkpoints,
                make_header(step),
                [[Fragment("master", "w", 0, torch.full((4,), float(step)))]],
            )
            for step in (1, 2)
        ]

        self.before = {path.name for path in self.checkpoints.iterdir()}

    def run(self) -> None:
        average(self.checkpoints, self.averaged)

    def has_finished(self) -> bool:
        return False  # it replaces a former average

    def check(self) -> None:
        names = {path.name for path in self.checkpoints.iterdir()}
        assert names - self.before == {"average-of-1-2"}, names


COMMANDS: dict[str, Callable[[Path], Init | Average]] = {"init": Init, "average": Average}


def strike_everywhere(parent: Path, name: str, fault: Fault) -> int:
    """Return the number of operations; the same command succeeds after a fault at any of them.

    Nothing but the results of the command is left then.
    """
    for k in count(1):
        folder = Path(tempfile.mkdtemp(dir=parent))
        command = COMMANDS[name](folder)
        before = {path.name for path in folder.iterdir()}
        code, operations = struck_child(k, fault, command.run)
        assert code == (ENDED if k <= operations else 0), f"operation {k}: exit code {code}"
        if k > operations:
            return operations
        if not command.has_finished():
            command.run()
        command.check()
        left = {path.name for path in folder.iterdir()} - before
        assert not [entry for entry in left if entry.startswith(".")], (k, left)
    raise AssertionError
