"""Commands `transloom data …`: describe a dataset, verify it, and quarantine damaged shards."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table

from foundation.errors import ExtensionError
from foundation.terminal import Terminal, shown
from foundation.untrusted_text import visible
from foundation.wording import counted, join_first
from transloom.cli.options import (
    DatasetArgument,
    JsonOption,
    MovedDatasetOption,
    ProcessesOption,
    RunArgument,
    answer,
    step_range,
)

if TYPE_CHECKING:
    from data_pipeline.dataset.manifest import Manifest
    from data_pipeline.dataset.verification import FileProblem
    from data_pipeline.storage.store import DatasetStore

data_app = typer.Typer(
    no_args_is_help=True, help="Describe datasets, verify them, and quarantine damaged shards."
)

# Minimum size of a dataset for which several processes verify its files. For a smaller dataset,
# starting the processes would take longer than reading the files.
BYTES_FOR_ONE_PROCESS = 500_000_000
FILES_SHOWN = 10


@data_app.command("info")
def info(
    dataset: DatasetArgument,
    examples: Annotated[
        bool, typer.Option("--examples", help="Show examples of dropped pairs, by reason.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a dataset's corpora, lengths, dropped examples and quarantined shards.

    Examples:

      transloom data info datasets/phrasebook --examples

      transloom data info https://example.org/datasets/en-de --json
    """
    from transloom.cli.dataset_info import dataset_facts, dataset_report

    facts = dataset_facts(dataset, examples=examples or as_json)
    answer(facts, as_json, dataset_report(facts))


@data_app.command("verify")
def verify(
    dataset: DatasetArgument, processes: ProcessesOption = None, as_json: JsonOption = False
) -> None:
    """Compare every file of a dataset with its manifest; exit with code 1 on damage.

    The command lists missing and damaged files, and says how to restore them.

    Example:  transloom data verify datasets/phrasebook
    """
    verified = verify_dataset(dataset, Terminal(stderr=True), processes)
    failed = bool(verified["problems"])
    answer(verified, as_json, verification_report(verified), failed=failed)


@data_app.command("quarantine")
def quarantine(
    dataset: DatasetArgument,
    shards: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARD...",
            help="Shards to exclude, named as in the output of `transloom data verify`.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Reason for the exclusion; the manifest records it.")],
    as_json: JsonOption = False,
) -> None:
    """Exclude lost shards from a dataset, so that its runs can continue without them.

    The other shards do not change. The command keeps the previous manifest, so that you can undo
    the exclusion.

    Example:  transloom data quarantine datasets/de shards/train-00007.tar --reason "disk failed"
    """
    done = quarantine_shards(dataset, shards, reason)
    answer(done, as_json, quarantine_text(done))


@data_app.command("trace")
def trace(
    run: RunArgument,
    steps: Annotated[
        str,
        typer.Option(
            metavar="A:B", help="Range of steps to show, from A to B inclusive, or a single step."
        ),
    ],
    dataset: MovedDatasetOption = None,
    texts: Annotated[
        bool, typer.Option("--texts", help="Also show the texts of the examples, by slot.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the pairs that a run trains on at given steps, past or future, without training.

    The command computes the data digest of each step as the ranks do. The exit code is 1 if a
    digest differs from the run's record. A sample id is the number of a pair in the dataset; --json
    prints all ids.

    Examples:

      transloom data trace runs/phrasebook --steps 120 --texts

      transloom data trace runs/phrasebook --steps 1:50 --json
    """
    from cluster.data.trace import trace as trace_run
    from cluster.data.trace import trace_report

    first, last = step_range(steps)
    traced = trace_run(run, first, last, dataset, Terminal(stderr=True), texts)
    failed = any(step.equal is False for step in traced)
    answer([step.to_json() for step in traced], as_json, trace_report(traced), failed=failed)


def verify_dataset(dataset: str, console: Terminal, processes: int | None) -> dict[str, Any]:
    """Compare every file of a dataset with its manifest, and return a summary with all problems.

    Args:
        dataset: a folder or URL.

    Raises:
        DatasetError: there is no dataset, or its manifest is damaged.
    """
    from data_pipeline.batching.task import rules_by_corpus
    from data_pipeline.config.corpus import is_remote
    from data_pipeline.dataset.manifest import Manifest
    from data_pipeline.dataset.verification import problems_of
    from data_pipeline.storage.store import open_store
    from foundation.process_pool import cores
    from transloom.cli.prepare import work_progress

    # No retries: a user is waiting for the answer.
    store = open_store(dataset, retry_delays_seconds=())
    manifest = Manifest.load(store)
    size = int(manifest.shards.shard_bytes.sum())
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


def _problems_of_tokenizers(store: "DatasetStore", manifest: "Manifest") -> "list[FileProblem]":
    """Load the tokenizers, whose files match the manifest, and return the problems found."""
    from data_pipeline.dataset.verification import FileProblem
    from data_pipeline.errors import DatasetFileError, TokenizerError
    from data_pipeline.tokenizers.tokenizer import load_tokenizers

    try:
        load_tokenizers(store, manifest)
    except DatasetFileError as error:
        return [FileProblem(error.file, error.expected, error.found)]
    except TokenizerError as error:
        files = ", ".join(dict.fromkeys(info.file for info in manifest.tokenizers.values()))
        return [FileProblem(files, "tokenizers", str(error))]
    except ExtensionError:
        # The tokenizer belongs to an extension, and only a recipe can load extensions.
        pass
    return []


def _unknown_files(folder: Path, manifest: "Manifest") -> list[str]:
    """Return the files in the folder that the manifest does not list, except parent manifests."""
    from data_pipeline.dataset.verification import unknown_files

    parents = {path.name for path in folder.glob("manifest-*.json")}
    return [name for name in unknown_files(folder, manifest) if name not in parents]


def verification_report(verified: dict[str, Any]) -> Group:
    """Return the findings of a verification, and the steps that repair the dataset."""
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
        parts += [table, "", shown((f"{count} of {dataset} do not match the manifest.", "red"))]
        parts.append(_remedy_text(dataset, [problem["file"] for problem in problems]))
    else:
        size = decimal(verified["bytes"])
        whole = f"{dataset} is intact: {counted(verified['files'], 'file')}, {size} of shards, "
        parts.append(shown((f"{whole}match manifest {verified['identity'][:16]}….", "green")))
    if left_out := verified["quarantined"]:
        some = join_first(left_out, FILES_SHOWN, noun=None)
        parts.append(f"Quarantined and not checked: {some}.")
    if unknown := verified["unknown_files"]:
        some = join_first(unknown, FILES_SHOWN, noun=None)
        parts.append(f"Files not listed in the manifest, which no run reads: {some}.")
    return Group(*parts)


def _remedy_text(dataset: str, files: list[str]) -> str:
    from data_pipeline.config.corpus import is_remote
    from data_pipeline.storage.store import MANIFEST_NAME

    text = (
        "Restore these files from a copy, or run `transloom prepare` with the recipe again: the "
        "same corpora give the same bytes."
    )
    if shards := [name for name in files if name.startswith("shards/")]:
        where = "FOLDER" if is_remote(dataset) else dataset
        names = " ".join(shards) if len(shards) <= FILES_SHOWN else f"{shards[0]} …"
        text += (
            " If shards are permanently lost, exclude them: transloom data quarantine "
            f"{where} {names} --reason TEXT"
        )
        if is_remote(dataset):
            text += (
                f"  (FOLDER is the original folder of the dataset; afterwards, copy its "
                f"{MANIFEST_NAME} to the URL)"
            )
    return text


def quarantine_shards(dataset: str, shards: list[str], reason: str) -> dict[str, Any]:
    """Exclude shards from a dataset by a child manifest, and return a summary.

    See `preparation/quarantine.py` for the child manifest.

    Raises:
        DatasetError: the dataset is a URL, or a shard does not exist or is already quarantined.
    """
    from data_pipeline.config.corpus import is_remote
    from data_pipeline.dataset.manifest import Manifest, archived_name
    from data_pipeline.errors import DatasetError
    from data_pipeline.preparation.quarantine import quarantine
    from data_pipeline.storage.store import MANIFEST_NAME, open_store

    if is_remote(dataset):
        raise DatasetError(
            f"{dataset} is a URL, but shards can only be quarantined in a folder. Quarantine them "
            f"in the original folder of the dataset, then copy its {MANIFEST_NAME} to the URL."
        )
    folder = _folder(dataset)
    parent = Manifest.load(open_store(folder, retry_delays_seconds=()))
    child = quarantine(folder, shards, reason)
    now_left_out = child.left_out - parent.left_out
    return {
        "dataset": dataset,
        "identity": child.identity,
        "parent": parent.identity,
        "parent_file": str(folder / archived_name(parent.identity)),
        "shards": sorted(now_left_out),
        "noun": child.noun,
        "pairs_left_out": sum(s.pairs for s in child.shards if s.name in now_left_out),
        "pairs_to_train_on": int(child.shards.pairs[child.shards_in_training()].sum()),
        "pairs": child.pairs,
    }


def quarantine_text(done: dict[str, Any]) -> str:
    """Return a description of the exclusion, its effect on runs, and the command that undoes it."""
    from data_pipeline.storage.store import MANIFEST_NAME

    folder = Path(done["parent_file"]).parent
    return (
        f"Excluded from {done['dataset']}: {', '.join(done['shards'])}. Training loses "
        f"{counted(done['pairs_left_out'], done['noun'])}: {done['pairs_to_train_on']:,} of "
        f"{done['pairs']:,} remain for training, with the same order and numbers.\n"
        f"The manifest is now {done['identity']}, a child of {done['parent']}. A run uses the new "
        "manifest when its command is started again. If the run stopped within a window of an "
        "excluded shard, it continues with the next window, and its record says so. Copy the new "
        f"{MANIFEST_NAME} to all other copies of the dataset.\n"
        f"To undo this before a run continues: mv {done['parent_file']} {folder / MANIFEST_NAME}"
    )


def _folder(dataset: str) -> Path:
    return Path(dataset.removeprefix("file://"))
