"""Find mistakes within a second: each message is one line with both values and the remedy."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from support.cluster.another_user import NOBODY
from support.files.small_disk import run_on_small_disk
from support.recipes import tiny_recipe, tiny_values, write_yaml
from support.records.run_folders import opened_run
from support.runs import Runs
from support.storage.fault_proxy import Answer, FaultProxy

from cluster.errors import ClusterError
from cluster.planning import quick_checks, versions
from cluster.planning.quick_checks import (
    cluster_problems,
    disk_of,
    quick_check,
    run_folder_problems,
)
from cluster.planning.size import min_parameters, size_of_checkpoint
from cluster.ray import folder_access
from cluster.recipe import RECIPES, Recipe, load_recipe
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.errors import DatasetError
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import ModelConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder


def changed(dataset, **sections):
    values = tiny_values(dataset)
    for section, fields in sections.items():
        values[section] = {**values.get(section, {}), **fields}
    return Recipe.of(values)


def refusals(checked):
    return [problem.text for problem in checked.problems if problem.refuses]


def test_a_trainable_run_has_no_problems(phrasebook, tmp_path):
    checked = quick_check(tiny_recipe(phrasebook), RunFolder(tmp_path / "run"))
    assert checked.problems == ()
    _, manifest = checked.require()
    assert manifest.identity == open_dataset(tiny_recipe(phrasebook).data)[1].identity
    assert list(tmp_path.iterdir()) == []  # the check writes nothing


def test_a_missing_dataset_ends_training_with_the_dataset_s_error(tmp_path):
    recipe = tiny_recipe(tmp_path / "nowhere")
    checked = quick_check(recipe, RunFolder(tmp_path / "run"))
    assert [problem.about for problem in checked.problems] == ["dataset"]
    with pytest.raises(DatasetError):
        checked.require()


def test_a_client_does_not_report_a_dataset_that_only_the_cluster_may_have(tmp_path):
    recipe = tiny_recipe(tmp_path / "nowhere")
    checked = quick_check(recipe, RunFolder(tmp_path / "run"), trains_here=False)
    assert checked.problems == ()
    checked.raise_refusal()


def test_a_client_does_not_ask_a_server_for_the_dataset(phrasebook, tmp_path):
    """Only the nodes may be able to reach the server, and have its credentials."""
    recipe = changed(phrasebook, data={"dataset": "http://127.0.0.1:9/nowhere"})
    checked = quick_check(recipe, RunFolder(tmp_path / "run"), trains_here=False)
    assert checked.problems == ()


def test_a_client_reports_problems_of_a_dataset_that_it_can_read(phrasebook, tmp_path):
    recipe = changed(phrasebook, tokenizer={"vocabulary_size": 999})
    checked = quick_check(recipe, RunFolder(tmp_path / "run"), trains_here=False)
    (problem,) = checked.problems
    assert "999" in problem.text
    assert "1000" in problem.text


def test_the_folder_of_a_different_run_is_refused(phrasebook, tmp_path):
    recipe = tiny_recipe(phrasebook)
    run = opened_run(tmp_path / "run", recipe)
    run.metrics.write_text("{}\n")
    other = recipe.model_copy(update={"seed": 4})
    checked = quick_check(other, run)
    assert [problem.about for problem in checked.problems] == ["run"]
    with pytest.raises(RunMismatchError, match="seed: 3 there, 4 here"):
        checked.require()


def test_an_object_store_that_cannot_be_written_is_reported(
    phrasebook, s3_server, s3_environment, monkeypatch
):
    """The check comes before any start; a client does not check, as it may lack the credentials."""
    bucket = s3_server.bucket("quick")
    with FaultProxy(s3_server.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert refusals(quick_check(tiny_recipe(phrasebook), RunFolder.of(f"{bucket}/run"))) == []
        for url in ("s3://no-such-bucket/run", f"{bucket}/other"):
            (refusal,) = refusals(quick_check(tiny_recipe(phrasebook), RunFolder.of(url)))
            assert url in refusal
            proxy.fail(Answer(403), "PUT")
        assert "Check the credentials and their permissions" in refusal
        checked = quick_check(tiny_recipe(phrasebook), RunFolder.of(url), trains_here=False)
        assert refusals(checked) == []


@pytest.mark.long
def test_a_run_in_an_object_store_is_compared_with_the_recipe(
    phrasebook, s3_server, s3_environment, tmp_path, monkeypatch
):
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))
    url = f"{s3_server.bucket('quick')}/run"
    runs = Runs(tmp_path / "tiny.yaml", tmp_path, address="")
    write_yaml(runs.recipe, tiny_values(phrasebook))
    runs.train_at(url, "trainer.max_steps=1", inline=True)
    shutil.rmtree(tmp_path / "cache")
    other = changed(phrasebook, model={"width": 64})
    (refusal,) = refusals(quick_check(other, RunFolder.of(url)))
    assert "model.width" in refusal


def test_a_file_in_the_path_of_the_run_s_folder_is_reported(phrasebook, tmp_path):
    (tmp_path / "file").touch()
    checked = quick_check(tiny_recipe(phrasebook), RunFolder(tmp_path / "file" / "run"))
    (text,) = refusals(checked)
    assert f"{tmp_path / 'file'} is a file" in text
    assert "--run PATH" in text


def test_training_checks_the_run_s_folder_before_anything_else(inline_runs, tmp_path):
    """The check comes before training starts Ray, imports torch or creates a folder."""
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ClusterError, match="is a file"):
        inline_runs.train("file/run", inline=True)
    with pytest.raises(ClusterError, match="is a file"):
        inline_runs.train("file/run")
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_folder_that_belongs_to_another_user_is_reported(phrasebook, tmp_path, monkeypatch):
    # Root can write to any folder.
    monkeypatch.setattr(
        folder_access, "_has_permission", lambda path, mode: mode == os.F_OK and path.exists()
    )
    (text,) = refusals(quick_check(tiny_recipe(phrasebook), RunFolder(tmp_path / "run")))
    assert f"{tmp_path} belongs to user" in text


@pytest.mark.needs("small disks")
def test_a_file_system_that_is_mounted_read_only_is_reported(tmp_path):
    """The check also finds this for root."""
    program = f"""
import json, subprocess
from pathlib import Path
from cluster.planning.quick_checks import run_folder_problems
from run_store.folder import RunFolder
disk = Path({str(tmp_path / "disk")!r})
before = list(run_folder_problems(RunFolder(disk / "new")))
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
after = list(run_folder_problems(RunFolder(disk / "new")))
print(json.dumps([[problem.text for problem in found] for found in (before, after)]))
"""
    before, (text,) = run_on_small_disk(tmp_path / "disk", 100, program)
    assert before == []
    assert f"{tmp_path / 'disk'} is on a file system that is mounted read-only" in text
    assert "belongs to" not in text
    assert "--run PATH" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_the_user_cannot_enter_is_reported(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "runs").mkdir()
    os.seteuid(NOBODY)
    try:
        (problem,) = run_folder_problems(RunFolder(tmp_path / "closed" / "runs" / "new"))
    finally:
        os.seteuid(0)
    assert "this process runs as user" in problem.text


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("127.0.0.1:1", "at 127.0.0.1:1.*`ray start --head` printed"),
        ("http://127.0.0.1:8265", "HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_joined_leaves_no_run(inline_runs, address, remedy, monkeypatch):
    """A wrong address is refused before the run gets an owner."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-no-cluster-0000000000000000000")
    inline_runs.address = address
    with pytest.raises(ClusterError, match=remedy):
        inline_runs.train("new")
    assert not (inline_runs.folder / "new").exists()


def test_a_complete_run_needs_no_cluster(phrasebook, tmp_path):
    run = RunFolder(tmp_path / "run")
    (run.checkpoints / "step-00000020").mkdir(parents=True)
    recipe = changed(phrasebook, cluster={"address": "127.0.0.1:1"})
    assert list(cluster_problems(recipe, run)) == []


@pytest.mark.parametrize(
    ("checkpoints_that_fit", "refuses"), [(0.5, True), (1.5, False), (4.0, None)]
)
def test_a_disk_without_space_for_one_checkpoint_is_refused_and_for_all_reported(
    phrasebook, tmp_path, monkeypatch, checkpoints_that_fit, refuses
):
    recipe = changed(phrasebook, checkpoints={"every_steps": 5, "keep_last": 3})  # 4 checkpoints
    _, manifest = open_dataset(recipe.data)
    each = size_of_checkpoint(recipe, min_parameters(recipe, manifest))
    free = int(checkpoints_that_fit * each)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    checked = quick_check(recipe, RunFolder(tmp_path / "run"))
    assert [p.refuses for p in checked.problems] == ([] if refuses is None else [refuses])
    assert all("has 0." in p.text or "MB free" in p.text for p in checked.problems)
    if refuses:
        with pytest.raises(ClusterError, match="none can be written"):
            checked.require()
    else:
        checked.require()


def test_a_complete_run_needs_no_disk_space(phrasebook, tmp_path):
    recipe, run = tiny_recipe(phrasebook), RunFolder(tmp_path / "run")
    (run.checkpoints / "step-00000020").mkdir(parents=True)
    assert disk_of(recipe, run, 10**12).wanted == 0


def test_ranks_that_do_not_fit_into_memory_are_refused(phrasebook, tmp_path, monkeypatch):
    monkeypatch.setattr(quick_checks.host_memory, "available_bytes", lambda: 100_000)
    (text,) = refusals(quick_check(tiny_recipe(phrasebook), RunFolder(tmp_path / "run")))
    assert "this machine has 0.1 MB left" in text
    elsewhere = changed(phrasebook, cluster={"address": "127.0.0.1:1"})
    checked = quick_check(elsewhere, RunFolder(tmp_path / "run"))
    assert [problem.about for problem in checked.problems] == ["cluster"]


def test_memory_checkpoints_that_do_not_fit_are_named_but_not_refused(
    phrasebook, tmp_path, monkeypatch
):
    monkeypatch.setattr(quick_checks, "shared_memory_bytes", lambda: 1000)
    wanted = changed(phrasebook, checkpoints={"memory_every_steps": 5})
    checked = quick_check(wanted, RunFolder(tmp_path / "run"))
    assert refusals(checked) == []
    (problem,) = checked.problems
    assert "of /dev/shm, but only 0.0 MB are free" in str(problem.text)
    assert "checkpoints.memory_every_steps" in str(problem.text)
    assert not quick_check(tiny_recipe(phrasebook), RunFolder(tmp_path / "run")).problems


def test_more_gpus_than_the_machine_has_are_refused(phrasebook, tmp_path, monkeypatch):
    from cluster.ray import private

    monkeypatch.setattr(private, "machine_gpus", lambda: 1)
    recipe = changed(phrasebook, cluster={"ranks": 2, "gpus_per_rank": 1})
    (text,) = refusals(quick_check(recipe, RunFolder(tmp_path / "run")))
    assert "needs 2 GPUs, but Ray finds 1 here" in text


def test_packages_of_unsupported_versions_are_reported(phrasebook, tmp_path, monkeypatch):
    lines = ["torch==1.0", "numpy==0.1", "ray[default]==2.0.0", 'deepspeed==0.1; extra == "dev"']
    monkeypatch.setattr(versions.metadata, "requires", lambda name: lines)
    checked = quick_check(tiny_recipe(phrasebook), RunFolder(tmp_path / "run"))
    checked.require()  # training may still start
    assert [text.split()[0] for text in checked.notices] == ["torch", "ray"]
    assert "transloom requires version 1.0" in checked.notices[0]


NEWER = ("model.key_value_heads=2", "model.activation=swiglu", "model.norm_kind=rms")


@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        *((path, ()) for path in sorted(RECIPES.glob("*.yaml"))),
        (RECIPES / "vaswani-base.yaml", NEWER),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else value.stem,
)
def test_the_matrices_of_a_network_have_nearly_all_of_its_parameters(path, overrides):
    recipe = load_recipe(path, overrides)
    size = recipe.tokenizer.vocabulary_size
    names = ["src", "tgt"] if isinstance(recipe.model, ModelConfig) else ["text"]
    manifest = SimpleNamespace(
        fields=[SimpleNamespace(name=name) for name in names],
        tokenizers={name: SimpleNamespace(vocabulary_size=size) for name in names},
    )
    with torch.device("meta"):
        if isinstance(recipe.model, ModelConfig):
            network = Transformer(recipe.model, Vocabulary(size, size, 0, 2, 3))
        elif isinstance(recipe.model, LabelTextsConfig | LabelTokensConfig):
            labels, context = len(recipe.data.labels), recipe.batching.context_length
            network = LabelModel(recipe.model, size, context, labels)
        elif isinstance(recipe.model, SentenceEncoderConfig):
            network = SentenceEncoder(recipe.model, size, recipe.batching.context_length)
        elif isinstance(recipe.model, EncoderOnlyConfig):
            network = MaskedLanguageModel(recipe.model, size, recipe.batching.context_length)
        else:
            network = DecoderOnly(recipe.model, size, 0, recipe.batching.context_length)
    there = sum(parameter.numel() for parameter in network.parameters())
    assert 0.95 < min_parameters(recipe, manifest) / there <= 1
