"""Differences that `scripts/same_bits` reports: each kind by name, and none between equal runs.

The runs are written by hand in the format of `transloom train`. No test runs the script on two
real commits.
"""

import json
import re
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.covering import value_pairs
from two_commits.cases import CASES, STEPS, Case, Sides
from two_commits.checkout import CheckoutError, check_out_commit, copy_working_tree
from two_commits.comparison import (
    EVENTS,
    FIELDS,
    HEADER_FIELDS,
    LINE_FIELDS,
    UNCOMPARED_EVENTS,
    UNCOMPARED_FIELDS,
    UNCOMPARED_HEADER_FIELDS,
    ComparisonError,
    compare_datasets,
    compare_runs,
)
from two_commits.speed import interval_of_median, measure_in_turn

from cluster.recipe import find_recipe, load_recipe
from run_store.checkpoints.format import CheckpointHeader
from run_store.record import metrics_lines

WEIGHTS = np.array([0.0, 1.5, -2.0, 3.25], np.float32)


def write_run(
    folder: Path,
    change: Callable[[dict[str, Any]], object] = lambda line: None,
    steps: int = 3,
    fragments: dict[str, np.ndarray] | None = None,
    header: dict[str, Any] | None = None,
) -> Path:
    """Write a run with a record, whose lines ``change`` may change, and one checkpoint."""
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        train = {"step": step, "kind": "train", "time": id(lines), "data_digest": f"d{step}"}
        lines.append(train | {"loss": 5.0 - step / 8, "grad_norm": 0.5, "learning_rate": 1e-3})
    lines.append({"step": steps, "kind": "validation", "loss": 4.0, "bleu": 0.1, "samples": []})
    lines.append({"step": steps, "kind": "event", "event": "resumed"})
    for line in lines:
        change(line)
    checkpoint = folder / "checkpoints" / f"step-{steps:08d}"
    checkpoint.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = {"step": steps, "recipe": {"dataset": str(folder)}, "gradient_peaks": {"weight": 2.0}}
    (checkpoint / "checkpoint.json").write_text(json.dumps(values | (header or {})))
    for rank, (key, tensor) in enumerate((fragments or {"master:weight:0": WEIGHTS}).items()):
        save_file({key: tensor}, checkpoint / f"state-{rank}.safetensors")
    return folder


@pytest.fixture
def differences(tmp_path):
    """Return a function that compares a run with a changed one and returns the differences."""

    def compare(*arguments: Any, **changes: Any) -> list[str]:
        base = write_run(tmp_path / "base")
        here = write_run(tmp_path / "here", *arguments, **changes)
        return compare_runs(base, here).differences

    return compare


def at(step: int, kind: str = "train", **values: Any) -> Callable[[dict[str, Any]], object]:
    """Return a function that changes fields of the line of a step and kind."""

    def change(line: dict[str, Any]) -> None:
        if (line["step"], line["kind"]) == (step, kind):
            line |= values

    return change


def test_runs_that_differ_only_in_times_and_paths_are_equal(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("base", "here")]
    comparison = compare_runs(*runs)
    assert comparison.differences == []
    assert comparison.compared == "3 steps, 1 checkpoint of 1 tensor"


def test_a_difference_in_the_last_bit_of_a_loss_is_reported(differences):
    other = float(np.nextafter(4.75, 5))
    (found,) = differences(at(2, loss=other, grad_norm=0.25))
    assert found == f"step 2: data_digest equal, loss 4.75 / {other}; then grad_norm"


def test_different_data_is_reported_before_the_loss(differences):
    (found,) = differences(at(3, loss=1.0, data_digest="other"))
    assert found == "step 3: data_digest d3 / other; then loss"


def test_a_missing_field_is_reported_and_a_missing_data_digest_refused(tmp_path, differences):
    (found,) = differences(lambda line: line.pop("learning_rate", None), steps=1)[:1]
    assert found == "step 1: data_digest equal, learning_rate 0.001 / (absent)"
    with pytest.raises(ComparisonError, match="train line without data_digest"):
        compare_runs(
            tmp_path / "base",
            write_run(tmp_path / "silent", lambda line: line.pop("data_digest", None)),
        )


def test_steps_and_checkpoints_that_one_run_lacks_are_reported(differences):
    assert differences(steps=2) == [
        "validation at step 2: not in the base",
        "step 3: only in the base",
        "validation at step 3: only in the base",
        "checkpoint step-00000002: not in the base",
        "checkpoint step-00000003: only in the base",
    ]


def test_different_validations_and_replay_mismatches_are_reported(differences):
    event = at(3, "event", event="replay_mismatch", fields={"loss": [1, 2]})
    found = differences(lambda line: (at(3, "validation", bleu=0.2)(line), event(line)))
    assert found[0] == "validation at step 3: bleu 0.1 / 0.2"
    assert found[1].startswith('events replay_mismatch: [] / ["{')


@pytest.mark.parametrize("element", range(4))
def test_a_difference_in_one_bit_of_a_tensor_is_reported(differences, element):
    """Flips the lowest bit of an element, and the sign of 0.0, because -0.0 == 0.0."""
    bits = WEIGHTS.view(np.uint32).copy()
    bits[element] ^= 1 if element else 1 << 31
    (found,) = differences(fragments={"master:weight:0": bits.view(np.float32)})
    assert found.startswith(
        "checkpoint step-00000003: master:weight: 1 of 4 elements, "
        f"first element {element}: {WEIGHTS[element]} / "
    )


def test_tensors_cut_differently_by_ranks_are_equal(differences):
    assert (
        differences(fragments={"master:weight:1": WEIGHTS[1:], "master:weight:0": WEIGHTS[:1]})
        == []
    )


def test_missing_tensors_are_reported_and_gaps_between_fragments_refused(tmp_path, differences):
    found = differences(fragments={"master:weight:0": WEIGHTS, "ema:weight:0": WEIGHTS})
    assert found == ["checkpoint step-00000003: ema:weight: not in the base"]
    with pytest.raises(ComparisonError, match="master:weight leave gaps"):
        compare_runs(
            tmp_path / "base", write_run(tmp_path / "gap", fragments={"master:weight:1": WEIGHTS})
        )


def test_differences_of_a_checkpoints_header_are_reported(differences):
    (found,) = differences(header={"gradient_peaks": {"weight": 4.0}})
    assert found.endswith('checkpoint.json: gradient_peaks {"weight": 2.0} / {"weight": 4.0}')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recent_steps", {"losses": [4.5], "grad_norms": [0.5]}),
        ("skipped_spikes", 1),
        ("frozen", ["weight"]),
    ],
)
def test_different_spike_guard_state_and_frozen_parameters_are_reported(differences, field, value):
    (found,) = differences(header={field: value})
    assert f"checkpoint.json: {field} null / " in found


@pytest.mark.parametrize("field", ["model_flops", "hardware_flops", "other_sums", "slots"])
def test_different_flops_other_sums_and_skipped_slots_are_reported(differences, field):
    assert differences(at(2, **{field: 7})) == [
        f"step 2: data_digest equal, {field} (absent) / 7",
    ]


def test_an_event_that_only_one_run_has_is_reported(differences):
    (found,) = differences(at(3, "event", event="corruption_found", ranks=[1]))
    assert found.startswith('events corruption_found: [] / ["{')


def test_unknown_fields_kinds_and_events_are_refused(tmp_path):
    base = write_run(tmp_path / "base")
    unknown: dict[str, dict[str, Any]] = {
        "train line, new_field": {"change": at(1, new_field=1)},
        "validation line, f1": {"change": at(3, "validation", scores={"f1": {"value": 0.5}})},
        "kind, moved": {
            "change": lambda line: line["kind"] == "event" or line.update(kind="moved")
        },
        "event, moved": {"change": at(3, "event", event="moved")},
        "checkpoint.json, new_field": {"header": {"new_field": 1}},
    }
    for number, (message, changes) in enumerate(unknown.items()):
        here = write_run(tmp_path / str(number), **changes)
        for runs in ((base, here), (here, base)):
            with pytest.raises(ComparisonError, match=message) as error:
                compare_runs(*runs)
            assert str(here) in str(error.value)


def test_every_field_and_event_of_the_record_is_known():
    def fields(*models: type) -> set[str]:
        return {name for model in models for name in model.model_fields}  # type: ignore[attr-defined]

    steps = fields(metrics_lines.TrainLine, metrics_lines.SkippedLine) - LINE_FIELDS
    assert steps == {*FIELDS["train"]} - {"kind"} | UNCOMPARED_FIELDS["train"]
    assert fields(CheckpointHeader) <= {*HEADER_FIELDS} | UNCOMPARED_HEADER_FIELDS
    events = {event.model_fields["event"].default for event in get_args(metrics_lines.Event)}
    assert events == {*EVENTS} | UNCOMPARED_EVENTS


def test_runs_with_empty_records_are_refused(tmp_path):
    for name in ("base", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").touch()
    with pytest.raises(ComparisonError, match="has no step"):
        compare_runs(tmp_path / "base", tmp_path / "here")


def test_datasets_are_compared_by_every_byte(tmp_path):
    for name in ("base", "here"):
        (tmp_path / name / "shards").mkdir(parents=True)
        (tmp_path / name / "shards" / "0.tar").write_bytes(b"shard")
    assert compare_datasets(tmp_path / "base", tmp_path / "here").differences == []
    (tmp_path / "here" / "shards" / "0.tar").write_bytes(b"Shard")
    (tmp_path / "here" / "manifest.json").touch()
    missing, other = compare_datasets(tmp_path / "base", tmp_path / "here").differences
    assert missing == "manifest.json: not in the base"
    assert other.startswith("shards/0.tar: sha256 ")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_recipe_of_each_case_can_be_loaded(case: Case, tmp_path):
    side: Any = SimpleNamespace(work=tmp_path)
    command = Sides(side, side, multi30k=tmp_path).command_of(case, tmp_path / "run", STEPS, side)
    verb, name, *options = map(str, command)
    assert verb == "train"
    recipe = load_recipe(find_recipe(name), [option for option in options if "=" in option])
    assert recipe.model.dropout > 0
    assert recipe.trainer.max_steps == STEPS
    assert "--inline" in options or recipe.cluster.ranks == case.ranks


def test_cases_cover_all_pairs_of_stage_ranks_numerics_and_precision():
    shapes = {re.search(r"stage(.)-(.)x-(\w+)-(\w+)", case.name) for case in CASES} - {None}
    met = {value for shape in shapes for value in value_pairs(shape.groups())}
    factors = [["0", "1", "2", "3"], ["1", "2", "3"], ["fast", "exact"], ["fp32", "bf16"]]
    impossible = value_pairs(("0", None, None, "bf16"))
    wanted = {value for case in product(*factors) for value in value_pairs(case)}
    assert wanted - met == {value for value in impossible if None not in value}


PROJECT = """
[project]
scripts = {{ transloom = "{module}:main" }}
[tool.hatch.build.targets.wheel]
packages = [{packages}]
"""
# Prints in a spawned process, like `transloom prepare`.
COMMAND = """
import multiprocessing

def main():
    process = multiprocessing.get_context("spawn").Process(target=print, args=({says!r},))
    process.start()
    process.join()
    return process.exitcode
"""


@pytest.fixture
def repository(tmp_path):
    """Return a repository whose working tree has the command in another package than its commit."""
    root = tmp_path / "repository"

    def git(*arguments: str) -> None:
        own = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", "-C", root, *own, *arguments], check=True, capture_output=True)

    def write(package: str, module: str, says: str) -> None:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").touch()
        (root / package / "cli.py").write_text(COMMAND.format(says=says))
        (root / f"{package}_api.py").touch()
        text = PROJECT.format(packages=f'"{package}", "{package}_api.py"', module=module)
        (root / "pyproject.toml").write_text(text)

    write("old", "old.cli", "committed")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "begun")
    (root / "old" / "cli.py").unlink()
    write("src/new", "new.cli", "lies here")
    return root


def test_each_side_imports_its_modules_from_its_copy(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository / "src"))  # must have no effect
    base = check_out_commit(repository, "HEAD", tmp_path / "base")
    here = copy_working_tree(repository, tmp_path / "here")
    assert [side.transloom().strip() for side in (base, here)] == ["committed", "lies here"]
    assert "numpy" in base.run(base.python, "-c", "import numpy; print(numpy.__name__)")
    with pytest.raises(CheckoutError, match="ModuleNotFoundError: No module named 'new'"):
        base.run(base.python, "-c", "import new")
    with pytest.raises(CheckoutError, match="There is no commit nowhere"):
        check_out_commit(repository, "nowhere", tmp_path / "nowhere")


def test_a_side_that_would_import_modules_from_elsewhere_is_refused(repository, tmp_path):
    (repository / "pyproject.toml").write_text(PROJECT.format(packages='"numpy"', module="numpy"))
    with pytest.raises(CheckoutError, match=r"here would import \S+numpy/__init__.py"):
        copy_working_tree(repository, tmp_path / "here")


def test_the_interval_of_a_median_consists_of_order_statistics():
    """For 20 values, tables of the sign test give the 6th and the 15th value."""
    found = interval_of_median([float(value) for value in range(20, 0, -1)])
    assert (found.low, found.median, found.high) == (6.0, 10.5, 15.0)
    assert interval_of_median([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]).low == 1.0
    with pytest.raises(ValueError, match="5 pairs are too few"):
        interval_of_median([1.0] * 5)


def test_the_order_of_the_two_sides_alternates():
    order = []

    def side(name: str, rate: float) -> Callable[[], dict[str, float]]:
        return lambda: order.append(name) or {"rate": rate}

    ratios = list(measure_in_turn(side("base", 2.0), side("here", 3.0), 3))
    assert order == ["base", "here", "here", "base", "base", "here"]
    assert ratios == [{"rate": 1.5}] * 3
