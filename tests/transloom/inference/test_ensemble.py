"""Ensembles of runs, used from Python and from the command line."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.invocation import invoke

from model.generation.search import ensemble_search
from run_store.errors import RunMismatchError
from trainer.errors import TranslationError
from transloom.inference.ensemble import join
from transloom.inference.searchers import OwnSearcher, SearchOrigin
from transloom.inference.trained_network import load_network
from transloom.inference.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]


@pytest.fixture(scope="module")
def members(untrained_run):
    """Return two members: the run at its steps 1 and 2."""
    return [(untrained_run.path, 1), (untrained_run.path, 2)]


@pytest.fixture(scope="module")
def together(members):
    return Translator.load_ensemble(members)


def test_an_ensemble_translates_by_ensemble_search_over_its_checkpoints(members, together):
    models = [Translator.load(*member).model for member in members]
    ids = torch.tensor([together.source_ids(SENTENCES[2])])
    expected = ensemble_search(models, [ids, ids], together.decoding)[0]
    found = together.translate_n_best(SENTENCES[2:3])[0]
    assert [translation.ids for translation in found] == [one.ids for one in expected]
    assert [t.score for t in found] == pytest.approx([one.score for one in expected])


def test_an_ensemble_of_a_run_with_itself_translates_like_the_run(members):
    alone, twice = Translator.load(*members[0]), Translator.load_ensemble([members[0]] * 2)
    for one, two in zip(
        alone.translate_n_best(SENTENCES), twice.translate_n_best(SENTENCES), strict=True
    ):
        assert [t.text for t in one] == [t.text for t in two]
        assert [t.score for t in one] == pytest.approx([t.score for t in two], abs=1e-5)
    assert twice.memory.of_position == 2 * alone.memory.of_position


def test_members_with_separate_source_tokenizers_translate_the_same(together, members):
    """The second run gets a separate tokenizer entry with the same pieces."""
    other = Translator.load_ensemble(members)
    other._tokenizers = {**together._tokenizers, "src.2": together._tokenizers["src"]}
    origin = SearchOrigin(together._searcher._origin.members, ("src", "src.2"))
    other._active_search = OwnSearcher(origin.open(), origin).search
    expected = together.translate_n_best(SENTENCES, prefixes=["", "he", "", ""])
    assert other.translate_n_best(SENTENCES, prefixes=["", "he", "", ""]) == expected
    assert other.count_tokens(SENTENCES) == together.count_tokens(SENTENCES)


@pytest.mark.usefixtures("preloaded_processes")
def test_an_ensemble_translates_the_same_in_several_processes(together):
    expected = together.translate_n_best(SENTENCES)
    with together.in_processes(2):
        assert together.translate_n_best(SENTENCES) == expected


def test_an_ensemble_refuses_to_align(together):
    with pytest.raises(TranslationError, match=r"ensemble-tiny@1\+tiny@2-.* has no alignment"):
        together.align(["non"], together.translate_n_best(["non"])[0][:1])


def test_runs_with_different_target_tokenizers_are_refused(untrained_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(untrained_run.path, other)
    manifest = json.loads((other / "dataset" / "manifest.json").read_text())
    file = other / "dataset" / manifest["tokenizers"]["tgt"]["file"]
    content = file.read_bytes() + b"\xf8\x07\x01"  # a field that SentencePiece ignores
    file.write_bytes(content)
    for info in manifest["tokenizers"].values():
        info["sha256"] = hashlib.sha256(content).hexdigest()
    (other / "dataset" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunMismatchError, match=r"target tokenizers of .*tiny .*differ"):
        Translator.load_ensemble([(untrained_run.path, None), (other, None)])


def test_networks_with_different_start_tokens_are_refused(members):
    """The search would start both networks with the start token of the first."""
    networks = [load_network(run, step, "cpu", "fp32") for run, step in members]
    assert join(networks).members == tuple(network.weights for network in networks)
    model = networks[1].model
    model.config = model.config.model_copy(update={"decoder_start": "pad"})
    with pytest.raises(RunMismatchError, match=r"decoder_start is bos in .*tiny.* and pad in"):
        join(networks)


@pytest.mark.parametrize("limits", [(30, 50), (50, 30), (30, None), (None, 30)])
def test_the_shortest_training_limit_of_the_members_applies_to_sentences(members, limits):
    networks = []
    for (run, step), limit in zip(members, limits, strict=True):
        network = load_network(run, step, "cpu", "fp32")
        data = network.recipe.data.model_copy(update={"max_source_length": limit})
        recipe = network.recipe.model_copy(update={"data": data})
        networks.append(replace(network, recipe=recipe))
    assert join(networks).longest_trained == 30


def test_translate_accepts_several_runs_followed_by_a_file(untrained_run, together, tmp_path):
    run, file = untrained_run.path, tmp_path / "sentences"
    file.write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    expected = together.translate(SENTENCES)
    both = [f"{run}@1", f"{run}@2"]
    for arguments in ([*both, file], [*both, "--input", file]):
        assert invoke("translate", *arguments).stdout.split("\n")[:-1] == expected
    for arguments in (both, [*both, "-"]):
        told = invoke("translate", *arguments, given=file.read_text())
        assert told.stdout.split("\n")[:-1] == expected
    alone = invoke("translate", f"{run}@1", file).stdout.split("\n")[:-1]
    assert alone == Translator.load(run, 1).translate(SENTENCES) != expected


def test_wrong_arguments_of_an_ensemble_are_refused(untrained_run, tmp_path):
    run = untrained_run.path
    wrong = invoke("translate", run, tmp_path / "typo", run, code=2).output
    words = " ".join(wrong.replace("│", " ").split())
    assert "is not the folder of a run: name runs first" in words
    wrong = invoke("translate", run, run, "--alignments", code=2).output
    assert "name one run" in " ".join(wrong.replace("│", " ").split())
    with pytest.raises(RunMismatchError, match="name checkpoints as RUN@STEP"):
        invoke("translate", run, run, "--checkpoint", "1", given="")


def test_evaluate_scores_an_ensemble_and_stores_its_hypotheses(untrained_run, together):
    run = untrained_run.path
    (found,) = json.loads(
        invoke("evaluate", f"{run}@1", f"{run}@2", "--set", "validation", "--json").stdout
    )
    file = Path(found["hypotheses"])
    assert found["checkpoint"] == together.ensemble.name
    assert file.parent == untrained_run.translations
    assert file.name.startswith("validation-ensemble-tiny@1+tiny@2-")
    origin = json.loads(file.with_suffix(".json").read_text())["origin"]
    assert origin["checkpoint_sha256"] == together.ensemble.sha256
    assert math.isfinite(found["bleu"]["score"])
