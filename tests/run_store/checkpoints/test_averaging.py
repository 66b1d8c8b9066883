"""Average checkpoints: content of the average, replacement, and use for translation."""

import shutil
from pathlib import Path

import pytest
import torch
from support.records.checkpoints import make_header, save_checkpoint

from run_store.checkpoints.averaging import average
from run_store.checkpoints.checkpoint import Checkpoint, newest_intact
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import CheckpointError
from run_store.folder import RunFolder
from run_store.lease import Lease
from trainer.tasks.translation import translation_scores
from transloom.inference.translator import Translator

SHAPES = {"a": [3, 5], "b": [7]}


def weights(step):
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def save(folder, step, kinds=("master",), **fields):
    """Save a checkpoint as two ranks do, with each parameter cut in the middle, and return it."""
    shares = [[], []]
    for kind in kinds:
        for name, tensor in weights(step).items():
            flat = tensor.flatten() + (kind == "master" and "ema" in kinds)
            shares[0].append(Fragment(kind, name, 0, flat[:4]))
            shares[1].append(Fragment(kind, name, 4, flat[4:]))
    return save_checkpoint(folder, make_header(step, parameters=SHAPES, **fields), shares)


@pytest.mark.parametrize("kinds", [("master",), ("master", "exp_avg", "ema")])
def test_an_average_has_the_mean_of_the_weights(tmp_path, kinds):
    averaged = [
        save(tmp_path, step, kinds, scores=translation_scores(1.0, 5.0)) for step in (10, 20, 40)
    ]
    result = average(tmp_path, averaged)
    result.verify()
    assert result.path == tmp_path / "average-of-10-20-40"
    assert result.header.averaged_steps == [10, 20, 40]
    assert result.header.scores == {}  # scores belong to one checkpoint, so the average has none
    found = CheckpointReader(result).weights()
    for name, shape in SHAPES.items():
        exact = torch.stack([weights(step)[name].double() for step in (10, 20, 40)]).mean(0)
        assert torch.equal(found[name], exact.float())
        assert list(found[name].shape) == shape


def test_the_average_of_equal_checkpoints_equals_each_of_them(tmp_path):
    """In fp32, the sum of three equal checkpoints would be rounded."""
    one = save(tmp_path, 10)
    result = average(tmp_path, [one] * 3)
    found, expected = CheckpointReader(result).weights(), CheckpointReader(one).weights()
    assert all(torch.equal(found[name], expected[name]) for name in SHAPES)


def test_an_average_is_not_listed_as_a_checkpoint_to_resume_from(tmp_path):
    averaged = [save(tmp_path, step) for step in (10, 20)]
    average(tmp_path, averaged)
    assert list_checkpoints(tmp_path) == [checkpoint.path for checkpoint in averaged]
    newest, damaged = newest_intact(tmp_path)
    assert newest.step == 20
    assert not damaged


def test_an_average_replaces_an_older_one_of_the_same_steps(tmp_path):
    averaged = [save(tmp_path, step) for step in (10, 20)]
    first = average(tmp_path, averaged)
    (first.path / "mark").touch()
    second = average(tmp_path, averaged)
    assert second.path == first.path
    assert not (second.path / "mark").exists()
    assert not list(tmp_path.glob(".work-00000000-*"))


def test_damaged_checkpoints_and_those_of_other_models_are_not_averaged(tmp_path):
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    other = save_checkpoint(tmp_path, make_header(30), [[]])
    with pytest.raises(CheckpointError, match=r"step-00000010 has other parameters than"):
        average(tmp_path, [good, other])
    bad.file_paths()[0].write_bytes(b"")
    with pytest.raises(CheckpointError):
        average(tmp_path, [good, bad])
    assert not list(tmp_path.glob("average*"))


def test_averaging_does_not_take_the_lease_of_a_training_run(tmp_path):
    averaged = [save(tmp_path / "checkpoints", step) for step in (10, 20)]
    with Lease(tmp_path) as lease:
        average(tmp_path / "checkpoints", averaged)
        lease.check()


def test_a_run_started_during_averaging_removes_the_unfinished_average(tmp_path, monkeypatch):
    averaged = [save(tmp_path / "checkpoints", step) for step in (10, 20)]
    weight = CheckpointReader.weight

    def late(reader, parameter):
        if parameter == "b":
            with Lease(tmp_path):
                pass
        return weight(reader, parameter)

    monkeypatch.setattr(CheckpointReader, "weight", late)
    with pytest.raises(CheckpointError, match=r"began to train or prune.*the same command again"):
        average(tmp_path / "checkpoints", averaged)
    assert set((tmp_path / "checkpoints").iterdir()) == {one.path for one in averaged}


def test_an_average_is_written_parameter_by_parameter(tmp_path, monkeypatch):
    names = [f"p{number}" for number in range(5)]
    fragments = [Fragment("master", name, 0, torch.ones(1_000_000)) for name in names]
    header = make_header(10, parameters={name: [1_000_000] for name in names})
    checkpoint = save_checkpoint(tmp_path, header, [fragments])
    weight, sizes = CheckpointReader.weight, []

    def recording(reader, parameter):
        (file,) = tmp_path.glob(".work-00000000-*/*/*.safetensors")
        sizes.append(file.stat().st_size // 4_000_000)
        return weight(reader, parameter)

    monkeypatch.setattr(CheckpointReader, "weight", recording)
    average(tmp_path, [checkpoint])
    assert sizes == [0, 1, 2, 3, 4]


def test_a_translator_loads_an_average_by_name(untrained_run, tmp_path):
    run = RunFolder(Path(shutil.copytree(untrained_run.path, tmp_path / "run")))
    averaged = [Checkpoint(path) for path in list_checkpoints(run.checkpoints)]
    result = average(run.checkpoints, averaged)
    translator = Translator.load(run.path, result.path.name)
    both = [CheckpointReader(checkpoint).weights() for checkpoint in averaged]
    for name, parameter in translator.model.named_parameters():
        mean = (both[0][name].double() + both[1][name].double()) / 2
        assert torch.equal(parameter, mean.float())
    assert len(translator.translate(["je suis étudiant"])) == 1
    listed = r"named average-of-7. Name one of its checkpoints: \[1, 2, average-"
    with pytest.raises(CheckpointError, match=listed):
        Translator.load(run.path, "average-of-7")


def test_an_average_has_the_file_of_a_single_rank(tmp_path):
    result = average(tmp_path, [save(tmp_path, step) for step in (10, 20)])
    assert [file.name for file in result.header.files] == ["state-00000-of-00001.safetensors"]


def test_averaging_names_a_missing_file_if_no_other_process_trains_the_run(tmp_path, monkeypatch):
    """Only a missing work folder means that another process has begun to train."""
    averaged = [save(tmp_path, step) for step in (10, 20)]

    def lost(*arguments):
        raise FileNotFoundError(2, "No such file or directory", "state.safetensors")

    monkeypatch.setattr("run_store.checkpoints.averaging.write_state_file", lost)
    with pytest.raises(FileNotFoundError, match=r"state\.safetensors"):
        average(tmp_path, averaged)
    assert not list(tmp_path.glob(".work-00000000-*"))
