"""Command `transloom compare`: find the first difference between two runs."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.terminal import Terminal, print_result
from foundation.wording import counted, format_value
from transloom.cli.options import (
    JsonOption,
    MovedDatasetOption,
    ProcessesOption,
    RunArgument,
    answer,
)
from transloom.cli.run_urls import local_runs

if TYPE_CHECKING:
    from transloom.observe.comparison.comparison import Comparison, FirstDifference

TENSORS_NAMED = 3
LONGEST_SHOWN = 60


def compare(
    run: RunArgument,
    others: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folder or URL of the run to compare with; with --test, of one or more runs.",
            callback=local_runs,
        ),
    ],
    test: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of a test set. Compare how two or more runs translate this set.",
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With --test: print the answer in Markdown.")
    ] = False,
    dataset: MovedDatasetOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: settings, data and loss of each step, weights and optimizer state.

    The output starts with the settings that differ, such as the seed. It then names the first step
    whose data, loss or state differs. If the models differ, the command compares only the records.

    The exit code is 0 if both runs are the same to the last bit, else 1. If both have
    engine.numerics=exact, they can be the same even with different ranks and ZeRO stages:

      transloom compare runs/one-rank runs/three-ranks

    With --test, the command compares the runs' translations of a test set by BLEU, chrF and TER,
    with paired significance tests against the first run. It also breaks the scores down by sentence
    length, word frequency and seed. RUN@STEP names a checkpoint:

      transloom compare runs/base runs/new-1 runs/new-2 --test newstest2014 --markdown
    """
    if test is not None:
        from transloom.cli.compare_translations import compare_on_test_set
        from transloom.observe.terminal import comparison_tables

        if markdown and as_json:
            raise typer.BadParameter("--markdown and --json are both given: give only one of them")
        names = [str(name) for name in (run, *others)]
        found = compare_on_test_set(names, test, dataset, processes, Terminal(stderr=True))
        if markdown:
            print_result(comparison_tables.comparison_markdown(found))
        else:
            answer(found.to_json(), as_json, comparison_tables.comparison_text(found))
        return
    if markdown or len(others) > 1 or dataset or processes:
        raise typer.BadParameter(
            "without --test NAME, the command compares two runs step by step: name exactly "
            "two runs, and leave out --markdown, --dataset and --processes"
        )
    (other,) = others
    from transloom.observe.comparison.comparison import compare_runs, recipe_differences

    settings = recipe_differences(run, other)
    comparison = compare_runs(run, other)
    answer(
        {"settings": settings} | asdict(comparison) | {"same": comparison.is_same},
        as_json,
        in_words(settings, comparison),
        failed=not comparison.is_same,
    )


def in_words(settings: Mapping[str, tuple[Any, Any]], comparison: "Comparison") -> str:
    """Return the comparison as text: differing settings, common steps, and a line per aspect."""
    found = {"data": _data(comparison), "losses": _losses(comparison), "state": _state(comparison)}
    steps = f"{counted(comparison.steps, 'step')} in common"
    if first := comparison.first_difference:
        found["first"] = _first(first)
    lines = [steps, *(f"  {name:8}{text}" for name, text in found.items())]
    return "\n".join([*_setting_lines(settings), *lines])


def _setting_lines(settings: Mapping[str, tuple[Any, Any]]) -> list[str]:
    if not settings:
        return []
    width = max(map(len, settings))
    pairs = {name: _pair(*map(format_value, values)) for name, values in settings.items()}
    return [
        f"{counted(len(settings), 'setting')} differ{'s' if len(settings) == 1 else ''}",
        *(f"  {name:{width}}  {values}" for name, values in pairs.items()),
    ]


def _pair(first: str, second: str) -> str:
    shown = [t if len(t) <= LONGEST_SHOWN else f"{t[:LONGEST_SHOWN]}…" for t in (first, second)]
    return (
        " and ".join(shown)
        if shown[0] != shown[1]
        else f"two values that both start with {shown[0]}"
    )


def _first(first: "FirstDifference") -> str:
    from transloom.observe.terminal.replay import shortened

    if first.values is None:
        return f"step {first.step}: {first.parameters[0]}"
    values = " and ".join(map(shortened, first.values))
    return f"step {first.step}: {first.what}, {values}"


def _data(comparison: "Comparison") -> str:
    first = comparison.other_data_from
    return "the same in every step" if first is None else f"different data from step {first} on"


def _losses(comparison: "Comparison") -> str:
    first = comparison.other_loss_from
    if first is None:
        return "the same bits in every step"
    largest = comparison.largest_difference
    return f"different bits from step {first} on, differing by at most {largest:.1e}"


def _state(comparison: "Comparison") -> str:
    if others := comparison.other_parameters:
        return (
            "not compared: the models differ in "
            f"{counted(len(others), 'parameter')}: {_named(others)}"
        )
    step, tensors = comparison.checkpoint_step, comparison.tensors
    if step is None:
        return "not compared: no step has a checkpoint in both runs"
    different = comparison.other_tensors
    if not different:
        everywhere = f"{counted(tensors, 'tensor')} of weights and moments at step {step}"
        return f"the same bits in all {everywhere}"
    changed = f"different bits in {len(different)} of {counted(tensors, 'tensor')}"
    return f"{changed} at step {step}: {_named(different)}"


def _named(names: list[str]) -> str:
    return ", ".join(names[:TENSORS_NAMED]) + (" …" if len(names) > TENSORS_NAMED else "")
