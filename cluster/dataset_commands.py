"""`transloom prepare` and `transloom data`: datasets as a person sees them."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.recipe import Recipe
from data_pipeline.manifest import Manifest
from data_pipeline.prepare import PrepareProgress, prepare


def prepare_dataset(recipe: Recipe, console: Console, *, overwrite: bool) -> dict[str, Any]:
    """Prepare a recipe's dataset with a progress bar for each stage; returns a summary."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    unchanged = False
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, Any] = {}

        def report(now: PrepareProgress) -> None:
            nonlocal unchanged
            if now.stage == "unchanged":
                unchanged = True
                return
            if now.stage not in tasks:
                tasks[now.stage] = progress.add_task(now.stage, total=now.total)
            progress.update(tasks[now.stage], completed=now.done, total=now.total)

        manifest = prepare(recipe.data, recipe.tokenizer, report, overwrite=overwrite)
    counts = manifest.counts
    dropped = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in counts.dropped.items())
    done = "is there already, unchanged" if unchanged else "is ready"
    return {
        "dataset": recipe.data.dataset,
        "identity": manifest.identity,
        "pairs": manifest.pairs,
        "shards": len(manifest.shards),
        "dropped": counts.dropped,
        "unchanged": unchanged,
        "text": f"{recipe.data.dataset} {done}: {counts.kept:,} of {counts.read:,} pairs kept "
        f"(dropped: {dropped}), {len(manifest.shards)} shards, manifest {manifest.identity[:16]}…",
    }


def dataset_facts(dataset: Path) -> dict[str, Any]:
    """What the manifest of a dataset says."""
    manifest = Manifest.load(dataset)
    return {
        "dataset": str(dataset),
        "identity": manifest.identity,
        "fields": [field.model_dump() for field in manifest.fields],
        "counts": manifest.counts.model_dump(),
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "tokens": {
            field.name: sum(shard.tokens[field.name] for shard in manifest.shards)
            for field in manifest.fields
        },
        "vocabulary_size": {n: t.vocabulary_size for n, t in manifest.tokenizers.items()},
        "corpora": [corpus.model_dump() for corpus in manifest.corpora],
        "preparation": manifest.preparation,
    }


def dataset_table(facts: dict[str, Any]) -> Table:
    """The facts for a person."""
    table = Table(show_header=False, box=None)
    counts = facts["counts"]
    table.add_row("dataset", facts["dataset"])
    table.add_row("identity", facts["identity"])
    for field in facts["fields"]:
        name = field["name"]
        table.add_row(
            field["role"],
            f"{field['language']}: {facts['tokens'][name]:,} tokens, "
            f"{facts['vocabulary_size'][name]:,} pieces",
        )
    table.add_row("pairs", f"{counts['kept']:,} of {counts['read']:,} kept")
    for reason, number in counts["dropped"].items():
        table.add_row("", f"{number:,} dropped: {reason.replace('_', ' ')}")
    table.add_row("shards", f"{facts['shards']} with {facts['bytes'] / 1e6:,.1f} MB")
    for corpus in facts["corpora"]:
        table.add_row(corpus["use"], f"{corpus['pairs']:,} pairs")
    return table
