"""`transloom prepare`, `data verify` and `data quarantine`: datasets made, checked and mended."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TimeRemainingColumn
from rich.table import Table

from cluster.recipe import Recipe
from cluster.terminal import Terminal, Words, shown
from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.config.corpus import is_remote
from data_pipeline.dataset.manifest import Manifest, kept_name
from data_pipeline.dataset.verification import FileProblem, problems_of, strange_files
from data_pipeline.errors import DatasetError, DatasetFileError, TokenizerError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import PrepareProgress
from data_pipeline.preparation.quarantine import quarantine
from data_pipeline.storage.store import MANIFEST_NAME, DatasetStore, open_store
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from foundation.errors import ExtensionError
from foundation.process_pool import cores
from foundation.strangers_text import visible
from foundation.wording import counted
from transloom.commands.dataset_info import in_words

# Bytes up to which one process verifies: to start several would take longer than to read these.
BYTES_FOR_ONE_PROCESS = 500_000_000
FILES_SHOWN = 10


def work_progress(console: Terminal) -> Progress:
    """Bars with the amount of work and the remaining time; each task needs the field `amount`."""
    return Progress(
        Words("{task.description:<15}"),
        BarColumn(bar_width=20),
        Words("{task.fields[amount]}", justify="right"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


class _StageBars:
    """A progress bar for each stage of a preparation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self.unchanged = False

    def report(self, now: PrepareProgress) -> None:
        if now.stage == "unchanged":
            self.unchanged = True
            return
        # A tokenizer's training does not say how far it has come.
        total = None if now.stage == "train tokenizer" and not now.done else now.total
        if now.stage not in self._tasks:
            self._tasks[now.stage] = self._progress.add_task(now.stage, total=total, amount="")
        task = self._tasks[now.stage]
        self._progress.update(task, completed=now.done, total=total, amount=_amount(now))


def _amount(now: PrepareProgress) -> str:
    if now.stage == "read":
        return f"{decimal(now.done)} of {decimal(now.total)}"
    if now.stage == "train tokenizer":
        return ""
    unit = {"open": "corpora", "write": "examples", "compare": "files"}[now.stage]
    return f"{now.done:,} of {now.total:,} {unit}"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, so that both clear up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare_dataset(
    recipe: Recipe, console: Terminal, *, overwrite: bool, processes: int | None = None
) -> dict[str, Any]:
    """Prepare a recipe's dataset with a progress bar for each stage, and return a summary."""
    with _terminated_as_interrupted(), work_progress(console) as progress:
        bars = _StageBars(progress)
        manifest = prepare(
            recipe.data_settings, bars.report, overwrite=overwrite, processes=processes
        )
    summary = {
        "dataset": recipe.data.dataset,
        "identity": manifest.identity,
        "noun": manifest.noun,
        "pairs": manifest.pairs,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "corpora": [
            corpus.model_dump(include={"name", "read", "kept", "dropped"})
            for corpus in manifest.corpora
        ],
        "unchanged": bars.unchanged,
    }
    return {**summary, "text": _prepared_text(summary)}


def _prepared_text(summary: dict[str, Any]) -> str:
    done = "is there already, unchanged" if summary["unchanged"] else "is ready"
    lines = [
        f"{summary['dataset']} {done}: {counted(summary['pairs'], summary['noun'])}, "
        f"{counted(summary['shards'], 'shard')}, "
        f"{decimal(summary['bytes'])}, manifest {summary['identity'][:16]}…"
    ]
    for corpus in summary["corpora"]:
        dropped = ", ".join(
            f"{count:,} {in_words(reason)}" for reason, count in corpus["dropped"].items() if count
        )
        read = counted(corpus["read"], summary["noun"])
        lines.append(
            f"  {corpus['name']}: {corpus['kept']:,} of {read} kept; dropped: {dropped or 'none'}"
        )
    return "\n".join(lines)


def verify_dataset(dataset: str, console: Terminal, processes: int | None) -> dict[str, Any]:
    """Compare every file of a dataset with its manifest.

    Args:
        dataset: a folder or URL.

    Raises:
        DatasetError: there is no dataset, or its manifest is damaged.
    """
    # No retries: a person waits for the answer.
    store = open_store(dataset, retry_delays_seconds=())
    manifest = Manifest.load(store)
    size = sum(shard.bytes for shard in manifest.shards)
    alone = size < BYTES_FOR_ONE_PROCESS and not is_remote(dataset)
    with work_progress(console) as progress:
        files = len(list(manifest.files()))
        task = progress.add_task("verify", total=files, amount=f"0 of {counted(files, 'file')}")

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, amount=f"{done:,} of {counted(total, 'file')}")

        problems = problems_of(
            dataset,
            manifest,
            rules_by_corpus(manifest),
            processes or (1 if alone else cores()),
            report,
        )
    if not problems:
        problems = _problems_of_tokenizers(store, manifest)
    return {
        "dataset": dataset,
        "identity": manifest.identity,
        "files": files,
        "bytes": size,
        "problems": [asdict(problem) for problem in problems],
        "quarantined": sorted(manifest.left_out),
        "unknown_files": [] if is_remote(dataset) else _unknown_files(_folder(dataset), manifest),
    }


def _problems_of_tokenizers(store: DatasetStore, manifest: Manifest) -> list[FileProblem]:
    """What is wrong with the tokenizers of files that are as the manifest promises."""
    try:
        load_tokenizers(store, manifest)
    except DatasetFileError as error:
        return [FileProblem(error.file, error.expected, error.found)]
    except TokenizerError as error:
        files = ", ".join(dict.fromkeys(info.file for info in manifest.tokenizers.values()))
        return [FileProblem(files, "tokenizers", str(error))]
    except ExtensionError:  # that of an extension, which only a recipe loads
        pass
    return []


def _unknown_files(folder: Path, manifest: Manifest) -> list[str]:
    """Files that no manifest of the folder knows."""
    parents = {path.name for path in folder.glob("manifest-*.json")}
    return [name for name in strange_files(folder, manifest) if name not in parents]


def verification_report(verified: dict[str, Any]) -> Group:
    """What was found, and how to go on."""
    dataset, problems = verified["dataset"], verified["problems"]
    parts: list[RenderableType] = []
    if problems:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        longest = max(cell_len(visible(problem["file"])) for problem in problems)
        table.add_column("file", no_wrap=True, min_width=longest)
        for heading in ("expected", "found"):
            table.add_column(heading, overflow="fold")
        for problem in problems:
            table.add_row(problem["file"], problem["expected"], shown((problem["found"], "red")))
        count = f"{len(problems):,} of {counted(verified['files'], 'file')}"
        parts += [table, "", shown((f"{count} of {dataset} are not as the manifest says.", "red"))]
        parts.append(_how_to_go_on(dataset, [problem["file"] for problem in problems]))
    else:
        size = decimal(verified["bytes"])
        whole = f"{dataset} is whole: {counted(verified['files'], 'file')}, {size} of shards, as "
        parts.append(shown((f"{whole}manifest {verified['identity'][:16]}… says.", "green")))
    if left_out := verified["quarantined"]:
        parts.append(f"Quarantined and not looked at: {_some(left_out)}.")
    if unknown := verified["unknown_files"]:
        parts.append(f"Files that the manifest does not know, and nobody reads: {_some(unknown)}.")
    return Group(*parts)


def _some(names: list[str]) -> str:
    more = len(names) - FILES_SHOWN
    return ", ".join(names[:FILES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _how_to_go_on(dataset: str, files: list[str]) -> str:
    text = (
        "Restore them from a copy, or run `transloom prepare` with the recipe again: the same "
        "corpora give the same bytes."
    )
    if shards := [name for name in files if name.startswith("shards/")]:
        where = "FOLDER" if is_remote(dataset) else dataset
        names = " ".join(shards) if len(shards) <= FILES_SHOWN else f"{shards[0]} …"
        text += (
            " If shards are lost for good, leave them out: transloom data quarantine "
            f"{where} {names} --reason TEXT"
        )
        if is_remote(dataset):
            text += f"  (in the folder that the URL is a copy of; then copy its {MANIFEST_NAME})"
    return text


def quarantine_shards(dataset: str, shards: list[str], reason: str) -> dict[str, Any]:
    """Leave shards out of a dataset by a child manifest; see `preparation/quarantine.py`.

    Raises:
        DatasetError: the dataset is a URL, or a shard does not exist or is left out already.
    """
    if is_remote(dataset):
        raise DatasetError(
            f"Shards are quarantined in the folder of a dataset, and {dataset} is a URL. Do it in "
            f"the original folder, then copy its {MANIFEST_NAME} to the URL."
        )
    folder = _folder(dataset)
    parent = Manifest.load(open_store(folder, retry_delays_seconds=()))
    child = quarantine(folder, shards, reason)
    now_left_out = child.left_out - parent.left_out
    return {
        "dataset": dataset,
        "identity": child.identity,
        "parent": parent.identity,
        "parent_file": str(folder / kept_name(parent.identity)),
        "shards": sorted(now_left_out),
        "noun": child.noun,
        "pairs_left_out": sum(s.pairs for s in child.shards if s.name in now_left_out),
        "pairs_to_train_on": sum(s.pairs for s in child.shards if s.name not in child.left_out),
        "pairs": child.pairs,
    }


def quarantine_text(done: dict[str, Any]) -> str:
    """What was done, what it means for runs, and how to undo it."""
    folder = Path(done["parent_file"]).parent
    return (
        f"Left out of {done['dataset']}: {', '.join(done['shards'])}. That is "
        f"{counted(done['pairs_left_out'], done['noun'])} fewer: {done['pairs_to_train_on']:,} of "
        f"{done['pairs']:,} are left to train on. Order and numbers of all others stay.\n"
        f"Its manifest is now {done['identity']}, a child of {done['parent']}. Runs go on with it "
        "when the same command is started again; one that stopped within a window of such a shard "
        "goes on with the next window, and its record says so. A copy of the dataset elsewhere "
        f"needs the new {MANIFEST_NAME} too.\n"
        f"To undo it, before a run has gone on: mv {done['parent_file']} {folder / MANIFEST_NAME}"
    )


def _folder(dataset: str) -> Path:
    return Path(dataset.removeprefix("file://"))
