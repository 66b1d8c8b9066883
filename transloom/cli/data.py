"""`transloom data`: looking into datasets, and into what runs were fed from them."""

from typing import Annotated

import typer

from cluster.errors import EXIT_FAILED
from cluster.terminal import Terminal
from transloom.cli.options import (
    DatasetArgument,
    JsonOption,
    MovedDatasetOption,
    ProcessesOption,
    RunArgument,
    answer,
    step_range,
)

data_app = typer.Typer(no_args_is_help=True, help="Look into datasets; check and mend them.")


@data_app.command("info")
def info(
    dataset: DatasetArgument,
    examples: Annotated[
        bool, typer.Option("--examples", help="Show pairs that were dropped, by reason.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a dataset holds: corpora, lengths, what was dropped, what is quarantined.

    Examples:

      transloom data info datasets/phrasebook --examples

      transloom data info https://example.org/datasets/en-de --json
    """
    from transloom.commands.dataset_info import dataset_facts, dataset_report

    facts = dataset_facts(dataset, examples=examples or as_json)
    answer(facts, as_json, dataset_report(facts))


@data_app.command("verify")
def verify(
    dataset: DatasetArgument, processes: ProcessesOption = None, as_json: JsonOption = False
) -> None:
    """Compare every file with the manifest; exit code 1 if one is missing or damaged.

    Example:  transloom data verify datasets/phrasebook
    """
    from transloom.commands.datasets import verification_report, verify_dataset

    verified = verify_dataset(dataset, Terminal(stderr=True), processes)
    answer(verified, as_json, verification_report(verified))
    if verified["problems"]:
        raise typer.Exit(EXIT_FAILED)


@data_app.command("quarantine")
def quarantine(
    dataset: DatasetArgument,
    shards: Annotated[
        list[str], typer.Argument(metavar="SHARD...", help="As `transloom data verify` names them.")
    ],
    reason: Annotated[str, typer.Option(help="Why; kept in the manifest.")],
    as_json: JsonOption = False,
) -> None:
    """Leave lost shards out of a dataset, so that its runs can go on without them.

    Nothing else changes, and the manifest before is kept: it can be undone.

    Example:  transloom data quarantine datasets/de shards/train-00007.tar --reason "disk failed"
    """
    from transloom.commands.datasets import quarantine_shards, quarantine_text

    done = quarantine_shards(dataset, shards, reason)
    answer(done, as_json, quarantine_text(done))


@data_app.command("trace")
def trace(
    run: RunArgument,
    steps: Annotated[
        str, typer.Option(metavar="A:B", help="The steps, both inclusive; or one step.")
    ],
    dataset: MovedDatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which pairs a run was fed at some steps, or will be, without training.

    The data digests are computed as the ranks do; exit code 1 if one differs from the record.
    Sample ids are the numbers of pairs in the dataset; --json gives all of them.

    Examples:

      transloom data trace runs/phrasebook --steps 120

      transloom data trace runs/phrasebook --steps 1:50 --json
    """
    from cluster.data.trace import trace as trace_run
    from cluster.data.trace import trace_report

    first, last = step_range(steps)
    traced = trace_run(run, first, last, dataset, Terminal(stderr=True))
    answer([step.to_json() for step in traced], as_json, trace_report(traced))
    if any(step.equal is False for step in traced):
        raise typer.Exit(EXIT_FAILED)
