"""`transloom export` of translation runs."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, MarianMTModel

from foundation.tasks import TASKS
from model.errors import ModelError
from run_store.errors import RunError
from transloom.cli.export import Target, export_run
from transloom.inference.engine_names import ComputeType
from transloom.inference.hypotheses import sha256_of
from transloom.inference.translator import Translator


@pytest.fixture
def run(inline_runs):
    steps = ["trainer.max_steps=8", "trainer.validate_every_steps=8", "checkpoints.every_steps=4"]
    inline_runs.train("run", *steps, inline=True)
    return inline_runs.folder / "run"


def test_transformers_encode_like_the_run_that_was_exported(transloom, run, tmp_path):
    transloom("evaluate", run, "--beam-size", 1)
    folder = tmp_path / "exported"
    answer = json.loads(transloom("export", run, folder, "--to", "huggingface", "--json").stdout)
    assert answer["model"] == "MarianMTModel"
    assert answer["files"].split(", ") == sorted(path.name for path in folder.iterdir())
    assert [path.name for path in tmp_path.glob(".exported*")] == []

    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = MarianMTModel.from_pretrained(folder).eval()
    ours = Translator.load(run)
    sentences = ["le chat voit la maison", "je suis étudiant", ""]
    for sentence in sentences:
        batch = tokenizer([sentence], return_tensors="pt")
        assert batch["input_ids"][0].tolist() == ours.source_ids(sentence)
        with torch.no_grad():
            found = ours.model.encode(batch["input_ids"])
            order = [*range(0, 32, 2), *range(1, 32, 2)]  # Marian's order: sines first
            expected = theirs.get_encoder()(**batch).last_hidden_state
        torch.testing.assert_close(found[..., order], expected, rtol=0, atol=1e-5)


@pytest.mark.long
def test_the_model_card_has_scores_and_settings_but_no_local_paths(transloom, run, tmp_path):
    transloom("evaluate", run, "--beam-size", 1)
    folder = tmp_path / "exported"
    transloom("export", run, folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Weights of step-00000008, after " in card
    assert "- validation, greedily: bleu " in card
    assert "- phrasebook, transloom's beam 1, α 0.6, fp32: BLEU " in card
    assert f"| model.safetensors | `{sha256_of(folder / 'model.safetensors')}` |" in card
    assert "max_steps: 8" in card
    assert str(tmp_path) not in card
    assert str(run) not in card

    transloom("export", run, tmp_path / "older", "--checkpoint", "4")
    card = (tmp_path / "older" / "README.md").read_text(encoding="utf-8")
    assert "Weights of step-00000004, after " in card
    assert "BLEU" not in card  # the BLEU score was computed with later weights
    assert "None were computed with these weights." in card


@pytest.mark.long
def test_export_overwrites_nothing_and_writes_all_or_nothing(transloom, run, inline_runs, tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(RunError, match="folder with files: name a new folder"):
        transloom("export", run, folder)
    inline_runs.train("pre", "trainer.max_steps=4", "model.norm=pre", inline=True)
    pre = inline_runs.folder / "pre"
    with pytest.raises(ModelError, match=r"model\.norm is pre") as refusal:
        transloom("export", pre, tmp_path / "other", "--checkpoint", "4")
    assert not (tmp_path / "other").exists()
    assert list(tmp_path.glob(".*unfinished")) == []

    program, *arguments = shlex.split(str(refusal.value).split("for CTranslate2, run: ")[1])
    assert program == "transloom"
    assert "--checkpoint" in arguments
    transloom(*arguments)  # the command in the error message succeeds
    assert (tmp_path / "other" / "model.bin").exists()


@pytest.mark.long
def test_ctranslate2_is_not_suggested_for_a_network_that_it_lacks(transloom, inline_runs, tmp_path):
    inline_runs.train("rotary", "trainer.max_steps=4", "model.positions=rotary", inline=True)
    with pytest.raises(ModelError, match=r"model\.positions is rotary") as refusal:
        transloom("export", inline_runs.folder / "rotary", tmp_path / "other")
    assert "ctranslate2" not in str(refusal.value)


def test_export_names_the_target_for_the_task_of_the_run(untrained_run, monkeypatch, tmp_path):
    translation = replace(TASKS["translation"], exporters={"ctranslate2": "somewhere:else"})
    monkeypatch.setitem(TASKS._entries, "translation", translation)
    told = (
        r"trained for translation, .* only runs of causal_lm, .*: export it with --to ctranslate2$"
    )
    with pytest.raises(RunError, match=told):
        export_run(untrained_run.path, tmp_path / "exported", None)
    monkeypatch.setitem(TASKS._entries, "translation", replace(translation, exporters={}))
    with pytest.raises(RunError):
        export_run(untrained_run.path, tmp_path / "exported", None)


def test_export_quantizes_weights_if_requested(untrained_run, tmp_path):
    sizes = {}
    for quantization in (None, ComputeType.INT8):
        folder = tmp_path / f"{quantization}"
        found = export_run(untrained_run.path, folder, "1", Target.CTRANSLATE2, quantization)
        assert found["model"] == f"a CTranslate2 model in {quantization or 'float32'}"
        assert found["checkpoint"] == "step-00000001"
        assert found["folder"] == str(folder)
        sizes[quantization] = (folder / "model.bin").stat().st_size
    assert sizes[ComputeType.INT8] < 0.6 * sizes[None]


def test_export_fills_an_empty_folder_but_overwrites_no_file(untrained_run, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert export_run(untrained_run.path, Path(), None)["folder"] == str(empty)
    assert (empty / "model.safetensors").is_file()
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RunError, match="file is a file or a folder with files"):
        export_run(untrained_run.path, file, None)
    assert file.read_text() == "mine"
    deeper = tmp_path / "not" / "there" / "yet"
    export_run(untrained_run.path, deeper, None)
    assert [path.name for path in deeper.parent.iterdir()] == ["yet"]
