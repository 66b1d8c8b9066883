"""Model cards of exported translation models repeat facts of recipe and checkpoint."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.dataset.manifest import open_dataset
from model.config.transformer import DecodingConfig
from run_store.checkpoints.checkpoint import sha256_of
from run_store.checkpoints.format import HEADER
from run_store.scores import Score
from trainer.tasks.task import save_texts
from transloom.inference.export.ctranslate2 import CARD as CTRANSLATE2_CARD
from transloom.inference.export.model_card import CARD, model_card
from transloom.inference.hypotheses import HypothesesMetadata, file_name, origin_of
from transloom.inference.trained_network import load_network

DECODING = DecodingConfig(
    beam_size=3, length_penalty=0.35, max_length_factor=1.25, max_extra_length=7
)
TEMPLATES = {"huggingface": CARD, "ctranslate2": CTRANSLATE2_CARD}


@pytest.fixture
def trained(untrained_run, tmp_path):
    """Return a loaded network whose run has no translations."""
    found = load_network(untrained_run.path, 1, "cpu", "fp32")
    recipe = found.recipe.model_copy(update={"decoding": DECODING})
    return replace(found, recipe=recipe, weights=SimpleNamespace(run=tmp_path / "run"))


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the files of an export."""
    path = tmp_path / "exported"
    path.mkdir()
    for name in ("b.json", "a.bin"):
        (path / name).write_text(name)
    return path


def with_data(trained, **data):
    changed = trained.recipe.data.model_copy(update=data)
    return replace(trained, recipe=trained.recipe.model_copy(update={"data": changed}))


def with_header(trained, **header):
    checkpoint = trained.checkpoint
    changed = checkpoint.header.model_copy(update=header)
    return replace(trained, checkpoint=SimpleNamespace(path=checkpoint.path, header=changed))


@pytest.mark.parametrize("target", TEMPLATES)
def test_the_card_has_the_languages_size_and_search_settings(trained, folder, target):
    card = model_card(trained, folder, 678, TEMPLATES[target])
    weights = sum(parameter.numel() for parameter in trained.model.parameters())
    front = yaml.safe_load(card.split("---")[1])
    assert (front["language"], front["pipeline_tag"]) == (["fr", "en"], "translation")
    assert "# fr → en" in card
    assert f"{weights:,} weights" in card
    assert "same α of 0.35 favours" in card
    assert "after 1.25 × its source's tokens + 7 tokens" in card
    assert len(re.findall(r"\b678 tokens", card)) == {"huggingface": 2, "ctranslate2": 1}[target]


def test_the_card_has_the_number_of_training_tokens(trained, folder):
    card = model_card(with_header(trained, target_tokens_seen=1_234_567), folder, 512)
    assert "Weights of step-00000001, after 1,234,567 target tokens." in card


def test_the_card_has_hashes_of_all_files_the_checkpoint_and_the_dataset(trained, folder):
    card = model_card(trained, folder, 512)
    rows = dict(re.findall(r"^\| (.+) \| `(\w{64})` \|$", card, re.MULTILINE))
    checkpoint = trained.checkpoint
    assert list(rows) == [
        *("a.bin", "b.json"),
        *(f"the run's step-00000001/{HEADER}", "the dataset's manifest.json"),
    ]
    assert rows["b.json"] == sha256_of(folder / "b.json")
    assert rows[f"the run's step-00000001/{HEADER}"] == sha256_of(checkpoint.path / HEADER)
    assert rows["the dataset's manifest.json"] == checkpoint.header.dataset_identity


def test_the_card_has_the_training_settings_without_local_paths(trained, folder):
    started = trained.recipe.trainer.model_copy(update={"init_from": "/data/another-run"})
    recipe = trained.recipe.model_copy(update={"trainer": started})
    card = model_card(replace(trained, recipe=recipe), folder, 512)
    (text,) = re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)
    settings = yaml.safe_load(text)
    assert settings.keys() == {"seed", "model", "batching", "trainer", "engine", "decoding"}
    assert settings["seed"] == trained.recipe.seed
    assert settings["trainer"]["max_steps"] == trained.recipe.trainer.max_steps
    assert settings["decoding"]["max_extra_length"] == 7
    assert "another-run" not in card


def test_the_card_has_file_names_and_hashes_of_corpora_but_no_folders(trained, folder):
    corpora = (
        PairCorpusConfig(
            source="/data/secret/a.en",
            target="s3://bucket/a.de",
            source_sha256="a" * 64,
            target_sha256="b" * 64,
        ),
        PairCorpusConfig(files=("/data/secret/b.tsv",), tag="<bt>"),
        PairCorpusConfig(files=("c.tsv",), tag="<bt>"),
        PairCorpusConfig(files=("d.tsv",), tag=">>deu<<"),
    )
    card = model_card(with_data(trained, train=corpora), folder, 512)
    (named,) = re.findall(r"Corpora: (.*?)\. No text", card)
    hashes = [f"(sha256 {letter * 64})" for letter in "ab"]
    assert named == f"a.en {hashes[0]} and a.de {hashes[1]}, b.tsv, c.tsv, d.tsv"
    assert "secret" not in card
    assert "It may begin with a tag: `>><bt><<`, `>>deu<<`." in card


def test_the_card_mentions_tags_and_context_only_if_the_model_has_them(trained, folder):
    card = model_card(trained, folder, 512)
    assert "It may begin with a tag" not in card
    assert "may precede it" not in card
    card = model_card(with_data(trained, context_sentences=2), folder, 512)
    assert "Up to 2 sentences of its document may precede it" in card


def kept(trained, folder, texts, **origin):
    """Write translations of the test set to `folder` as `transloom evaluate` does."""
    store, manifest = open_dataset(trained.recipe.data)
    heldout = load_heldout(store, manifest, "phrasebook")
    found = origin_of(trained.checkpoint, "phrasebook", heldout, DECODING, "fp32")
    found = found.model_copy(update=origin)
    file = save_texts(folder, file_name(found), texts)
    card = HypothesesMetadata(origin=found, sentences=len(texts), sha256=sha256_of(file))
    file.with_suffix(".json").write_text(card.model_dump_json())


def lines_of_scores(card):
    return re.findall(r"^- (.*: BLEU .*|validation.*)$", card, re.MULTILINE)


def test_the_card_has_only_scores_of_the_exported_weights(trained, folder, phrasebook):
    assert "None were computed with these weights." in model_card(trained, folder, 512)
    scores = {
        "loss": Score(value=2.34567, more_is_better=False),
        "bleu": Score(value=None, more_is_better=True),  # the score was not finite
    }
    trained = with_header(trained, scores=scores)
    translations = trained.weights.run / "translations"
    recipe = tiny_recipe(phrasebook)
    references = load_heldout(*open_dataset(recipe.data), "phrasebook").texts["tgt"]
    kept(trained, translations, references)
    kept(trained, translations, references, engine="ctranslate2-int8")
    kept(trained, translations, references, checkpoint_sha256="0" * 64, checkpoint="step-00000009")
    (translations / "of-something-else.json").write_text("{}")
    validation, theirs, ours = lines_of_scores(model_card(trained, folder, 512))
    assert validation == "validation, greedily: loss 2.346"
    told = "phrasebook, transloom's beam 3, α 0.35, {}: BLEU 100.00 (sacreBLEU nrefs:1|case:mixed|"
    assert theirs.startswith(told.format("ctranslate2-int8"))
    assert ours.startswith(told.format("fp32"))
    (translations / "phrasebook-00000001-beam3-alpha0.35.txt").write_text("not what was hashed\n")
    assert lines_of_scores(model_card(trained, folder, 512)) == [validation, theirs]
