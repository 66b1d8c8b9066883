"""Create the inputs of smoke tests of benchmarks: folders, sentences, and runs of a few steps."""

import atexit
import sys
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from benchmarks.support.corpora import PHRASEBOOK, corpus_overrides
from benchmarks.support.environments import ROOT
from benchmarks.support.trainings import TRANSLOOM, complete, train_command
from data_pipeline.storage.phrasebook import phrasebook_pairs

SENTENCES = 400
SMALL_RUN = [
    "model.width=32",
    "model.heads=4",
    "trainer.max_steps=2",
    "tracking.wandb=disabled",
    "cluster.ranks=1",
]


def write_corpus(folder: Path) -> None:
    """Write some sentences of the phrasebook, with the file names of Multi30k."""
    folder.mkdir()
    for language, sentences in zip(
        ("de", "en"), zip(*phrasebook_pairs("validation"), strict=True), strict=True
    ):
        text = "".join(f"{sentence}\n" for sentence in sentences[:SENTENCES])
        (folder / f"train.{language}").write_text(text)


def train(recipe: str, run: Path) -> None:
    """Prepare the phrasebook instead of a recipe's corpus, and train a few steps."""
    settings = [*corpus_overrides(recipe, PHRASEBOOK), *SMALL_RUN]
    settings.append(f"data.dataset={run}-dataset")
    complete([TRANSLOOM, "prepare", recipe, *settings])
    complete(train_command(recipe, [*settings, "--inline"], run))


class SmokeFiles(dict[str, Path]):
    """Files for smoke tests by name.

    Each is created on first use, and removed at the process's end.

        python      this Python
        records     the folder of Multi30k's records
        folder      an empty folder
        corpus      a folder with train.en and train.de, in the format of Multi30k
        run         a run of multi30k-ende with two steps
        export      the export of `run` by `transloom export`
        masked_run  a run of multi30k-masked with two steps
    """

    def __init__(self) -> None:
        records = ROOT / "benchmarks" / "multi30k" / "records"
        super().__init__(python=Path(sys.executable), records=records)
        self._makers: dict[str, Callable[[Path], None]] = {
            "folder": Path.mkdir,
            "corpus": write_corpus,
            "run": lambda path: train("multi30k-ende", path),
            "export": lambda path: complete([TRANSLOOM, "export", str(self["run"]), str(path)]),
            "masked_run": lambda path: train("multi30k-masked", path),
        }

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        temporary = tempfile.TemporaryDirectory(prefix="smoke-")
        atexit.register(temporary.cleanup)
        return temporary

    def __missing__(self, name: str) -> Path:
        path = Path(self._temporary.name) / name
        self._makers[name](path)
        self[name] = path
        return path
