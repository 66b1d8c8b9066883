"""`transloom init --init-from` writes a recipe for a model's task, or names the remedy."""

import json
from pathlib import Path

import pytest
import torch

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.errors import CorpusError
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.tasks.masking import MASK
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.hugging_face.bert import to_bert, to_bert_encoder, to_bert_labels
from model.hugging_face.files import write_model
from model.hugging_face.language_model import to_hugging_face
from model.networks.decoder_only import DecoderOnly

SMALL = {"layers": 1, "width": 16, "heads": 2}
CONTEXT = 48
TEXT = ("--text", "texts.txt")
PAIRS = ("--source", "corpus.fr", "--target", "corpus.en")
TUNED = {
    "masked": ("masked_lm", TEXT),
    "masked of pairs": ("tlm", PAIRS),
    "labels": ("text_classification", ("--text", "labels.tsv", "--validation-text", "labels.tsv")),
    "encoder": ("sentence_embedding", PAIRS),
    "gpt2": ("causal_lm", TEXT),
    "llama": ("causal_lm", TEXT),
}


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = phrasebook_pairs("train")[:100]
    for side, language in enumerate(("fr", "en")):
        Path(f"corpus.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
    Path("texts.txt").write_text("".join(f"{pair[1]}\n" for pair in pairs))
    Path("labels.tsv").write_text("".join(f"{pair[1]}\tno\n" for pair in pairs))


@pytest.fixture
def folder_of(texts):
    """Return a function that writes a model with random weights and returns its folder."""
    lines = Path("texts.txt").read_text().splitlines()
    tokenizer = SentencePieceTokenizer.train(
        lines, TokenizerConfig(vocabulary_size=120), "m", [MASK]
    )

    def write(kind):
        torch.manual_seed(0)
        if kind in ("gpt2", "llama"):
            config = DecoderOnlyConfig(preset=kind, **SMALL)
            network = to_hugging_face(DecoderOnly(config, 120, tokenizer.pad_id, CONTEXT))
        elif kind == "labels":
            config = LabelTextsConfig(preset="bert", **SMALL)
            model = LabelModel(config, 120, CONTEXT, 2)
            network = to_bert_labels(model, tokenizer.pad_id, ["yes", "no"])
        else:
            model = MaskedLanguageModel(EncoderOnlyConfig(preset="bert", **SMALL), 120, CONTEXT)
            whole = kind.startswith("masked")
            network = to_bert(model, 0) if whole else to_bert_encoder(model.encoder, 0)
        folder = Path("model no: 1")
        folder.mkdir()
        write_model(folder, network)
        (folder / "tokenizer.model").write_bytes(tokenizer.model)
        return folder

    return write


@pytest.mark.parametrize("kind", TUNED)
def test_init_from_writes_a_recipe_for_the_models_task_and_network(transloom, folder_of, kind):
    task, files = TUNED[kind]
    folder = folder_of(kind)
    summary = json.loads(
        transloom("init", "my.yaml", *files, "--init-from", folder, "--json").stdout
    )
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.task == task
    assert recipe.trainer.init_from == str(folder)
    assert recipe.tokenizer.model == f"{folder}/tokenizer.model"
    assert recipe.tokenizer.vocabulary_size == 120
    assert recipe.batching.context_length == CONTEXT
    assert recipe.model.width == SMALL["width"]
    assert getattr(recipe.data, "labels", ()) == (("yes", "no") if kind == "labels" else ())
    assert summary["pairs"] > 50


def test_init_from_holds_out_the_last_texts(transloom, folder_of):
    transloom("init", "my.yaml", *TEXT, "--init-from", folder_of("gpt2"))
    data = load_recipe(Path("my.yaml")).data
    assert data.train[0].part == (0.0, 0.95)
    assert data.validation.part == (0.95, 1.0)


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("gpt2", PAIRS, "Name texts: --text FILE"),
        ("encoder", TEXT, "Name pairs: --source FILE"),
        ("gpt2", (*TEXT, "--tag", ">>x<<"), "leave out --tag"),
        ("labels", ("--text", "labels.tsv"), "only text and jsonl can be cut"),
    ],
)
def test_init_refuses_options_that_do_not_fit_the_model(transloom, folder_of, kind, files, message):
    folder = folder_of(kind)
    before = sorted(Path().iterdir())
    with pytest.raises(RecipeError, match=message):
        transloom("init", "my.yaml", *files, "--init-from", folder)
    assert sorted(Path().iterdir()) == before


def test_init_refuses_a_model_without_its_tokenizer(transloom, folder_of):
    folder = folder_of("gpt2")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(RecipeError, match=r"has no tokenizer\.model.*Copy the"):
        transloom("init", "my.yaml", *TEXT, "--init-from", folder)
    other = SentencePieceTokenizer.train(
        Path("texts.txt").read_text().splitlines(), TokenizerConfig(vocabulary_size=90), "m"
    )
    (folder / "tokenizer.model").write_bytes(other.model)
    with pytest.raises(RecipeError, match="has 90 pieces, but the network has vectors of 120"):
        transloom("init", "my.yaml", *TEXT, "--init-from", folder)


def test_init_refuses_texts_without_a_model_and_missing_files(transloom, folder_of):
    folder = folder_of("gpt2")
    assert transloom("init", "my.yaml", *TEXT).exit_code == 2  # without --init-from
    assert transloom("init", "my.yaml", *TEXT, *PAIRS, "--init-from", folder).exit_code == 2
    with pytest.raises(CorpusError):
        transloom("init", "my.yaml", "--text", "nowhere.txt", "--init-from", folder)
    assert not Path("my.yaml").exists()
