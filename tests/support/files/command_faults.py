"""Jobs for a `FaultServer`: commands that create a folder, with a fault at each file operation."""

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import torch

from cluster.recipe import load_recipe
from foundation.folder_lock import leftovers
from run_store.checkpoints.averaging import average
from run_store.checkpoints.fragment import Fragment
from run_store.folder import RunFolder, RunMetadata
from support.files.file_faults import ENDED, Fault, struck_child
from support.records.checkpoints import make_header, save_checkpoint
from support.records.lines import train_line
from transloom.cli.corpus_files import files_named
from transloom.cli.new_recipe import write_recipe
from transloom.observe.exports import Format, export_metrics

PAIRS = 40


class Init:
    """`transloom init` with two files, whose pairs are split into training and validation files."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "my.yaml"
        for name in ("a.fr", "a.en"):
            (folder / name).write_text("".join(f"{name} word {n} and more\n" for n in range(PAIRS)))
        self.files = files_named(folder / "a.fr", folder / "a.en", None, (None, None))

    def run(self) -> None:
        write_recipe(self.path, self.files)

    def has_finished(self) -> bool:
        """Return whether a call has finished: the command does not overwrite its recipe."""
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
        return False  # the command replaces an earlier average

    def check(self) -> None:
        names = {path.name for path in self.checkpoints.iterdir()}
        assert names - self.before == {"average-of-1-2"}, names


class Export:
    """`transloom export-metrics` of two steps, which replaces an export of the first step."""

    def __init__(self, folder: Path, to: Format) -> None:
        self.to, self.path, self.run_folder = to, folder / "out", RunFolder(folder / "run")
        self.run_folder.path.mkdir()
        card = RunMetadata(id="abcd1234", name="run", dataset_identity="", identity={})
        self.run_folder.card_path.write_text(card.model_dump_json())
        self.run_folder.metrics.write_text(train_line(1).to_json() + "\n")
        self.run()
        with self.run_folder.metrics.open("a") as record:
            record.write(train_line(2).to_json() + "\n")

    def run(self) -> None:
        export_metrics(self.run_folder.path, self.to, self.path, replace=True)

    def has_finished(self) -> bool:
        return False  # the command replaces an earlier export

    def last_step(self) -> int | None:
        """Check that the export's files are complete; return its last step, or None without one."""
        if not self.path.exists():
            return None
        if self.to == "csv":
            assert len(list(self.path.iterdir())) == 5
            return len((self.path / "train.csv").read_text().splitlines()) - 1
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.path)).Reload().Tensors("train/loss")
        return max(event.step for event in events)

    def check(self) -> None:
        assert self.last_step() == 2


Command = Init | Average | Export
COMMANDS: dict[str, Callable[[Path], Command]] = {"init": Init, "average": Average}
EXPORTS = {to: partial(Export, to=to) for to in ("csv", "tensorboard")}


def strike_everywhere(parent: Path, name: str, fault: Fault) -> list[int | None]:
    """Return the last step of the export after a fault at the first, second, … operation.

    After each fault, the test checks that the same command succeeds and leaves only its results.
    For commands that export nothing, the list contains None.
    """
    found = []
    for k in count(1):
        folder = Path(tempfile.mkdtemp(dir=parent))
        command = (COMMANDS | EXPORTS)[name](folder)
        before = {path.name for path in folder.iterdir()}
        code, operations = struck_child(k, fault, command.run)
        assert code == (ENDED if k <= operations else 0), f"operation {k}: exit code {code}"
        found.append(command.last_step() if isinstance(command, Export) else None)
        if not command.has_finished():
            command.run()
        command.check()
        left = {path.name for path in folder.iterdir()} - before
        assert not [entry for entry in left if entry.startswith(".")], (k, left)
        if k > operations:
            return found
    raise AssertionError
