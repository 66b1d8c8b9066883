"""Command `transloom prepare`: make a dataset from a recipe's corpora."""

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from foundation.terminal import Terminal, VisibleTextColumn, warn
from foundation.wording import counted
from transloom.cli.options import JsonOption, Overrides, ProcessesOption, RecipeArgument, answer
from transloom.cli.watch import handled_signals

if TYPE_CHECKING:
    from cluster.recipe import Recipe
    from data_pipeline.preparation.progress import PrepareProgress


def prepare(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an existing dataset that was prepared with other settings."
        ),
    ] = False,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a dataset from a recipe's corpora: tokenizer, shards, manifest.

    The command prints how many examples it dropped, and why. If the dataset is up to date, the
    command does nothing.

    Example:  transloom prepare multi30k-ende data.mirror=../multi30k
    """
    from cluster.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), overrides or ())
    summary = prepare_dataset(
        loaded, Terminal(stderr=True), overwrite=overwrite, processes=processes
    )
    for text in summary["warnings"]:
        warn(text)
    answer(summary, as_json, summary["text"])


def work_progress(console: Terminal) -> Progress:
    """Return progress bars that show the remaining time and the field `amount` of each task."""
    return Progress(
        VisibleTextColumn("{task.description:<15}"),
        BarColumn(bar_width=20),
        VisibleTextColumn("{task.fields[amount]}", justify="right"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


class _StageBars:
    """Progress bars of a preparation, one for each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self.unchanged = False

    def report(self, now: "PrepareProgress") -> None:
        if now.stage == "unchanged":
            self.unchanged = True
            return
        # The training of a tokenizer reports no progress.
        total = None if now.stage == "train tokenizer" and not now.done else now.total
        if now.stage not in self._tasks:
            self._tasks[now.stage] = self._progress.add_task(now.stage, total=total, amount="")
        task = self._tasks[now.stage]
        self._progress.update(task, completed=now.done, total=total, amount=_amount(now))


def _amount(now: "PrepareProgress") -> str:
    if now.stage == "read":
        return f"{decimal(now.done)} of {decimal(now.total)}"
    if now.stage == "train tokenizer":
        return ""
    unit = {"open": "corpora", "write": "examples", "compare": "files"}[now.stage]
    return f"{now.done:,} of {now.total:,} {unit}"


def prepare_dataset(
    recipe: "Recipe", console: Terminal, *, overwrite: bool, processes: int | None = None
) -> dict[str, Any]:
    """Prepare a recipe's dataset with a progress bar for each stage, and return a summary."""
    from data_pipeline.preparation.prepare import prepare

    # SIGTERM triggers the same cleanup as Ctrl-C.
    terminated_as_interrupted = handled_signals(signal.default_int_handler, signal.SIGTERM)
    with terminated_as_interrupted, work_progress(console) as progress:
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
        "bytes": int(manifest.shards.shard_bytes.sum()),
        "corpora": [
            corpus.model_dump(include={"name", "read", "kept", "dropped"})
            for corpus in manifest.corpora
        ],
        "warnings": manifest.leaks,
        "unchanged": bars.unchanged,
    }
    return {**summary, "text": _prepared_text(summary)}


def _prepared_text(summary: dict[str, Any]) -> str:
    from transloom.cli.dataset_info import in_words

    done = "already exists, unchanged" if summary["unchanged"] else "is ready"
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
