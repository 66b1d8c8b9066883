"""The commands `transloom export --to ctranslate2` and `translate --engine ctranslate2`."""

import json
import sys

import ctranslate2
import pytest
from support.invocation import invoke

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.tokenizers.tokenizer import train_tokenizer
from run_store.checkpoints.checkpoint import sha256_of
from run_store.errors import RunError
from trainer.errors import EngineError
from transloom.cli.export import Target, export_run
from transloom.inference.engine_names import ComputeType, Engine
from transloom.inference.export.ctranslate2 import require_plain
from transloom.inference.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]


def test_export_to_ctranslate2_writes_the_model_tokenizers_and_card(untrained_run, tmp_path):
    summary = json.loads(
        invoke(
            "export", untrained_run.path, tmp_path / "out", "--to", "ctranslate2", "--json"
        ).stdout
    )
    assert summary["checkpoint"] == "step-00000002"
    folder = tmp_path / "out"
    assert ctranslate2.contains_model(str(folder))
    tokenizer = Translator.load(untrained_run.path)._tokenizers["src"]
    assert (folder / "source.model").read_bytes() == tokenizer.model
    assert (
        json.loads((folder / "config.json").read_text()).items()
        >= {
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "decoder_start_token": "<s>",
            "add_source_bos": False,
            "add_source_eos": True,
            "layer_norm_epsilon": 1e-5,
        }.items()
    )
    card = (folder / "README.md").read_text()
    assert "ctranslate2.Translator" in card
    assert sha256_of(folder / "model.bin") in card
    translator = ctranslate2.Translator(str(folder))
    pieces = [tokenizer.piece(number) for number in tokenizer.encode(SENTENCES[:1])[0].tolist()]
    assert translator.translate_batch([pieces], max_decoding_length=9)[0].hypotheses[0]


def test_export_names_a_verbatim_tokenizer_that_it_refuses():
    config = TokenizerConfig(type="char", vocabulary_size=20, verbatim=True)
    rewriting = train_tokenizer(["ab"] * 9, config, "words.model")
    plain = train_tokenizer(["ab"] * 9, config.model_copy(update={"verbatim": False}), "plain")
    require_plain([plain])
    with pytest.raises(RunError, match=r"words\.model was trained with tokenizer\.verbatim"):
        require_plain([plain, rewriting])


def test_only_export_to_ctranslate2_accepts_quantization(untrained_run, tmp_path):
    with pytest.raises(RunError, match=r"--quantization is int8 .* only --to ctranslate2"):
        export_run(untrained_run.path, tmp_path / "out", None, Target.HUGGINGFACE, ComputeType.INT8)


def test_translate_prints_the_same_with_engine_ctranslate2(untrained_run, tmp_path):
    file = tmp_path / "sentences.txt"
    file.write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    command = ["translate", untrained_run.path, file, "--json", "--alignments", "--n-best", 2]
    ours = invoke(*command).stdout.splitlines()
    theirs = invoke(*command, "--engine", "ctranslate2", "--processes", 2).stdout.splitlines()
    for expected, found in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        assert found["source"] == expected["source"]
        for one, other in zip(found["translations"], expected["translations"], strict=True):
            assert one["text"] == other["text"]
            assert one["alignment"] == other["alignment"]
            assert one["score"] == pytest.approx(other["score"], rel=1e-4)
    (kept,) = (untrained_run.engines / "ctranslate2").iterdir()
    assert kept.name.startswith("step-00000002-")


def test_translate_refuses_options_that_the_engine_does_not_support(untrained_run):
    def load(**settings):
        return Translator.load(untrained_run.path, **settings)

    with pytest.raises(EngineError, match="--compute-type is int8, but only --engine ctranslate2"):
        load(compute_type=ComputeType.INT8)
    with pytest.raises(EngineError, match="--precision is bf16, but only --engine torch has this"):
        load(engine=Engine.CTRANSLATE2, precision="bf16")
    with pytest.raises(EngineError, match="on the CPU, but the device is cuda"):
        load(engine=Engine.CTRANSLATE2, device="cuda")
    lacking = sorted(set(ComputeType) - ctranslate2.get_supported_compute_types("cpu"))
    for compute_type in lacking:
        with pytest.raises(EngineError, match=f"is {compute_type}, but on this CPU CTranslate2"):
            load(engine=Engine.CTRANSLATE2, compute_type=compute_type)


def test_without_ctranslate2_the_error_says_what_to_install(untrained_run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(EngineError, match=r"pip install 'ctranslate2[^ ]+'"):
        Translator.load(untrained_run.path, engine=Engine.CTRANSLATE2)
    with pytest.raises(EngineError):
        export_run(untrained_run.path, tmp_path / "out", None, Target.CTRANSLATE2)
    assert not (tmp_path / "out").exists()


def test_the_name_of_the_engine_includes_its_compute_type(untrained_run):
    ours = Translator.load(untrained_run.path)
    theirs = Translator.load(
        untrained_run.path, engine=Engine.CTRANSLATE2, compute_type=ComputeType.INT8
    )
    assert (ours.engine, theirs.engine) == (None, "ctranslate2-int8")
