"""Comparison of two runs that may have been trained by different numbers of ranks."""

import json
import shutil

import pytest
import torch
import yaml
from support.records.checkpoints import make_header, save_checkpoint
from support.records.lines import skipped_line, train_line
from typer.testing import CliRunner

from cluster.errors import ClusterError
from run_store.checkpoints.fragment import Fragment
from run_store.errors import RunError, RunMismatchError
from run_store.folder import RunFolder, RunMetadata
from run_store.record.metrics_lines import Preempted
from transloom.cli.app import app
from transloom.observe.comparison.comparison import compare_runs, recipe_differences

SHAPES = {"a": [3, 4], "b": [5]}


KINDS = ("master", "exp_avg", "exp_avg_sq")


def make_run(
    folder, *, losses=(3.0, 2.0, 1.0), digests="abc", first=1, cuts=(), change=None, kinds=KINDS
):
    """Write a record and a checkpoint of step 2, split over ranks at `cuts`; return the folder."""
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    lines = [
        train_line(first + number, loss=loss, data_digest=digest)
        for number, (loss, digest) in enumerate(zip(losses, digests, strict=True))
    ]
    lines.insert(1, Preempted(step=first))
    card = RunMetadata(id="abcd1234", name=folder.name, dataset_identity="", identity={})
    run.card_path.write_text(card.model_dump_json())
    run.metrics.write_text("".join(line.to_json() + "\n" for line in lines))
    ranks = [[] for _ in range(len(cuts) + 1)]
    for kind in kinds:
        for name, shape in SHAPES.items():
            values = torch.arange(float(torch.Size(shape).numel()))
            if change == (kind, name):
                values[-1] = torch.nextafter(values[-1], torch.tensor(99.0))
            start = 0
            for rank, part in zip(ranks, values.tensor_split(cuts), strict=True):
                if len(part):
                    rank.append(Fragment(kind, name, start, part))
                start += len(part)
    save_checkpoint(run.checkpoints, make_header(2, parameters=SHAPES), ranks)
    return folder


@pytest.fixture
def one(tmp_path):
    return make_run(tmp_path / "one")


def test_runs_saved_by_different_ranks_are_the_same(one, tmp_path):
    found = compare_runs(one, make_run(tmp_path / "other", cuts=(2, 4)))
    assert found.is_same
    assert (found.steps, found.checkpoint_step, found.tensors) == (3, 2, 6)
    assert found.largest_difference == 0.0


def test_a_difference_in_the_last_bit_of_a_loss_is_found(one, tmp_path):
    losses = (3.0, 2.0, 1.0000000000000002)
    found = compare_runs(one, make_run(tmp_path / "other", losses=losses))
    assert not found.is_same
    assert (found.other_loss_from, found.other_data_from) == (3, None)
    assert found.largest_difference == pytest.approx(2.2e-16, rel=0.01)


@pytest.mark.parametrize("change", [("master", "a"), ("exp_avg", "b"), ("exp_avg_sq", "a")])
def test_a_difference_in_the_last_bit_of_the_state_is_found(one, tmp_path, change):
    found = compare_runs(one, make_run(tmp_path / "other", cuts=(3,), change=change))
    assert not found.is_same
    assert found.other_tensors == [":".join(change)]


@pytest.mark.parametrize("lacking", ["first", "second"])
def test_tensors_of_only_one_run_are_a_difference(one, tmp_path, lacking):
    other = make_run(tmp_path / "other", kinds=(*KINDS, "ema"))
    found = compare_runs(one, other) if lacking == "first" else compare_runs(other, one)
    assert not found.is_same
    assert (found.other_tensors, found.tensors) == (["ema:a", "ema:b"], 8)


def test_a_different_data_digest_is_found(one, tmp_path):
    found = compare_runs(one, make_run(tmp_path / "other", digests="axc"))
    assert not found.is_same
    assert found.other_data_from == 2


def test_only_common_steps_are_compared(one, tmp_path):
    found = compare_runs(
        one, make_run(tmp_path / "other", losses=(2.0, 1.0, 9.0), digests="bcd", first=2)
    )
    assert (found.steps, found.other_loss_from, found.other_data_from) == (2, None, None)


def test_the_first_of_several_differences_is_reported(one, tmp_path):
    other = make_run(tmp_path / "other", digests="xyz", losses=(3.0, 2.5, 1.5))
    found = compare_runs(one, other)
    assert (found.first_difference.step, found.first_difference.what) == (1, "data")
    assert (found.other_data_from, found.other_loss_from) == (1, 2)
    assert found.largest_difference == 0.5  # in step 3, relative to the first run's loss


def test_a_steps_loss_is_compared_before_the_parameters_after_it(one, tmp_path):
    other = make_run(tmp_path / "other", losses=(3.0, 2.5, 1.0), change=("master", "a"))
    found = compare_runs(one, other)
    assert found.checkpoint_step == 2
    assert (found.first_difference.step, found.first_difference.what) == (2, "loss")


def test_runs_are_compared_by_their_records_if_one_has_no_checkpoint(one, tmp_path):
    other = make_run(tmp_path / "other")
    shutil.rmtree(RunFolder(other).checkpoints)
    for found in (compare_runs(one, other), compare_runs(other, one)):
        assert found.is_same
        assert (found.checkpoint_step, found.tensors) == (None, 0)


def test_different_tensors_are_listed_by_parameter_and_then_by_kind(one, tmp_path):
    other = make_run(tmp_path / "other", kinds=("master",))
    moments = ["exp_avg:a", "exp_avg_sq:a", "exp_avg:b", "exp_avg_sq:b"]
    assert compare_runs(one, other).other_tensors == moments


def test_a_step_that_only_one_run_skipped_is_a_difference(one, tmp_path):
    other = make_run(tmp_path / "other")
    lines = [train_line(n, loss=4.0 - n, data_digest="abc"[n - 1]) for n in (1, 2, 3)]
    lines[1] = skipped_line(2, data_digest="b")
    RunFolder(other).metrics.write_text("".join(line.to_json() + "\n" for line in lines))
    found = compare_runs(one, other)
    assert found.largest_difference == 0
    assert found.first_difference.values == ("applied", "skipped")
    assert (found.first_difference.step, found.other_data_from) == (2, None)


def test_runs_without_a_common_step_cannot_be_compared(one, tmp_path):
    with pytest.raises(RunError, match=r"steps 1 to 3.*steps 7 to 9: no step can be"):
        compare_runs(one, make_run(tmp_path / "other", first=7))
    with pytest.raises(RunError, match=r"steps 1 to 3, .*begun has recorded no step: no"):
        compare_runs(one, make_run(tmp_path / "begun", losses=(), digests=""))


def test_comparing_with_a_missing_folder_is_refused(one, tmp_path):
    with pytest.raises(RunMismatchError):
        compare_runs(one, tmp_path / "nowhere")


def test_compare_prints_which_data_losses_and_tensors_differ(one, tmp_path):
    same = make_run(tmp_path / "same", cuts=(1,))
    result = CliRunner().invoke(app, ["compare", str(one), str(same)])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "3 steps in common",
        "  data    the same in every step",
        "  losses  the same bits in every step",
        "  state   the same bits in all 6 tensors of weights and moments at step 2",
    ]
    other = make_run(tmp_path / "other", losses=(3.0, 2.5, 1.0), change=("master", "b"))
    result = CliRunner().invoke(app, ["compare", str(one), str(other)])
    assert result.exit_code == 1
    assert "different bits from step 2 on, differing by at most 2.5e-01" in result.output
    assert "different bits in 1 of 6 tensors at step 2: master:b" in result.output


def test_compare_lists_different_settings_first(one, tmp_path):
    other = make_run(tmp_path / "other")
    for folder, seed, dropout, steps, ranks in ((one, 1, 0.1, 40, 1), (other, 2, 0.1, 60, 3)):
        run = RunFolder(folder)
        identity = {"seed": seed, "model.dropout": dropout}
        card = run.card().model_copy(update={"identity": identity, "dataset_identity": str(seed)})
        run.card_path.write_text(card.model_dump_json())
        values = {"seed": seed, "trainer": {"max_steps": steps}, "cluster": {"ranks": ranks}}
        run.recipe.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["compare", str(one), str(other)])
    assert result.exit_code == 0  # data, losses and state are equal
    head, *lines = result.output.splitlines()
    assert head == "3 settings differ"
    assert [line.split() for line in lines[:3]] == [
        ["seed", "1", "and", "2"],
        ["dataset", "manifest", "1", "and", "2"],
        ["trainer.max_steps", "40", "and", "60"],
    ]
    assert lines[3] == "3 steps in common"
    assert "ranks" not in result.output  # the number of ranks does not change the curve
    found = json.loads(CliRunner().invoke(app, ["compare", str(one), str(other), "--json"]).output)
    assert found["settings"]["seed"] == [1, 2]


def test_two_long_settings_with_the_same_start_are_shown_as_different(one, tmp_path):
    other = make_run(tmp_path / "other")
    for folder, name in ((one, "left"), (other, "right")):
        run = RunFolder(folder)
        identity = {"data.train": [{"source": "a" * 90 + name}], "task": ["not", "a", "name"]}
        run.card_path.write_text(
            run.card().model_copy(update={"identity": identity}).model_dump_json()
        )
    result = CliRunner().invoke(app, ["compare", str(one), str(other)])
    assert result.output.startswith(
        "1 setting differs\n  data.train  two values that both start with source a"
    )


def test_an_unreadable_recipe_is_reported(one, tmp_path):
    RunFolder(one).recipe.write_text("- 1")
    with pytest.raises(ClusterError, match=r"recipe\.yaml cannot be read: it holds a list"):
        recipe_differences(one, make_run(tmp_path / "other"))


def test_compare_prints_json(one, tmp_path):
    same = make_run(tmp_path / "same")
    result = CliRunner().invoke(app, ["compare", str(one), str(same), "--json"])
    assert json.loads(result.output)["same"] is True


def test_data_is_compared_before_the_loss_and_parameters_of_a_step(one, tmp_path):
    other = make_run(tmp_path / "data", digests="axc", losses=(3.0, 2.5, 1.0))
    first = compare_runs(one, other).first_difference
    assert (first.step, first.what, first.values) == (2, "data", ("b", "x"))
    first = compare_runs(one, make_run(tmp_path / "loss", losses=(3.0, 2.0, 9.0))).first_difference
    assert (first.step, first.what, first.values) == (3, "loss", (1.0, 9.0))
    changed = make_run(tmp_path / "state", losses=(3.0, 2.0, 9.0), change=("exp_avg", "a"))
    first = compare_runs(one, changed).first_difference
    assert (first.step, first.what, first.parameters) == (2, "parameters", ["exp_avg:a"])


def test_a_different_gradient_norm_is_found(one, tmp_path):
    other = make_run(tmp_path / "other")
    lines = [train_line(n, loss=4.0 - n, data_digest="abc"[n - 1]) for n in (1, 2, 3)]
    lines[1] = lines[1].model_copy(update={"grad_norm": 1.5})
    RunFolder(other).metrics.write_text("".join(line.to_json() + "\n" for line in lines))
    found = compare_runs(one, other)
    assert not found.is_same
    assert (found.first_difference.step, found.first_difference.what) == (2, "gradient norm")


def test_the_first_different_checkpoint_is_reported_in_model_order(one, tmp_path):
    shapes = {"z": [3], "a": [2]}
    for name, change in (("left", {}), ("right", {9: ("z", "a"), 16: ("a",)})):
        run = RunFolder(make_run(tmp_path / name))
        for path in run.checkpoints.glob("step-*"):
            shutil.rmtree(path)
        for step in (2, 9, 16):  # a set would have another order
            values = {
                n: torch.zeros(shape) + (n in change.get(step, ())) for n, shape in shapes.items()
            }
            fragments = [Fragment("master", n, 0, value) for n, value in values.items()]
            save_checkpoint(run.checkpoints, make_header(step, parameters=shapes), [fragments])
    found = compare_runs(tmp_path / "left", tmp_path / "right")
    assert (found.checkpoint_step, found.other_tensors) == (9, ["master:z", "master:a"])
    assert found.first_difference.parameters == ["master:z", "master:a"]


def test_runs_with_different_models_are_compared_by_their_records(one, tmp_path):
    other = make_run(tmp_path / "other", digests="abx")
    for path in RunFolder(other).checkpoints.glob("step-*"):
        shutil.rmtree(path)
    wider = {"a": [3, 5], "b": [5]}
    values = [
        Fragment("master", n, 0, torch.zeros(torch.Size(s).numel())) for n, s in wider.items()
    ]
    save_checkpoint(RunFolder(other).checkpoints, make_header(3, parameters=wider), [values])
    found = compare_runs(one, other)
    assert (found.other_data_from, found.other_parameters, found.tensors) == (3, ["a"], 0)
    assert not found.is_same
    result = CliRunner().invoke(app, ["compare", str(one), str(other)])
    assert result.exit_code == 1
    assert "the models differ in 1 parameter: a" in result.output
    assert "first   step 3: data, c and x" in result.output
