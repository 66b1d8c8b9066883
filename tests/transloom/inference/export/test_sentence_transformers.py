"""Exported sentence encoders compute the same vectors in other libraries."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE
from data_pipeline.tasks.masking import MASK
from data_pipeline.tokenizers.tokenizer import train_tokenizer
from model.config.sentence_encoder import SentenceEncoderConfig
from model.errors import ModelError
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from transloom.inference.export.hugging_face import write_sentence_transformer
from transloom.inference.sentence_embedder import SentenceEmbedder
from transloom.inference.trained_network import TrainedNetwork

WORDS = [a + b for a in ("ka", "ri", "mo", "tel") for b in ("shu", "ban", "ka", "ri")]
TEXTS = ["karimo  telshu", "", "mori", " ".join(WORDS), "ban ri, ka!", "日本"]  # 4th is truncated
LONGEST = 12


@pytest.fixture(scope="module", params=["mean", "first", "mean, with a mask"])
def exported(request, tmp_path_factory):
    """Return an embedder with large weights, and the folder of its export."""
    tags = [MASK] if request.param.endswith("mask") else []
    config = TokenizerConfig(type="bpe", vocabulary_size=70)
    tokenizer = train_tokenizer([f"{w} {w[::-1]}, !" for w in WORDS], config, "tokenizer", tags)
    settings = SentenceEncoderConfig(
        preset="bert", layers=2, width=32, heads=4, pooling=request.param.split(",")[0]
    )
    torch.manual_seed(0)
    network = SentenceEncoder(settings, tokenizer.vocabulary_size, LONGEST)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    folder.mkdir()
    found = TrainedNetwork(
        network, {SOURCE: tokenizer}, recipe=None, checkpoint=None, weights=None, passed_over=[]
    )
    assert write_sentence_transformer(found, folder) == "SentenceTransformer of a BertModel"
    return SentenceEmbedder(found), folder


@torch.no_grad()
def test_vectors_pooled_from_transformers_outputs_are_the_same(exported):
    embedder, folder = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    assert type(model).__name__ == "BertModel"
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] == LONGEST
    assert batch["input_ids"][3, -1] == embedder.tokenizer.eos_id
    hidden, real = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * real).sum(dim=1) / real.sum(dim=1)
    expected = F.normalize(pooled if embedder.network.config.pooling == "mean" else hidden[:, 0])
    found = embedder.embed(TEXTS)
    np.testing.assert_allclose(found.vectors, expected.numpy(), rtol=0, atol=2e-6)
    assert found.cut == [3]


def test_the_exported_files_describe_pooling_and_normalization(exported):
    embedder, folder = exported

    def content(name):
        return json.loads((folder / name).read_text())

    steps = [(step["path"], step["type"].rpartition(".")[2]) for step in content("modules.json")]
    assert steps == [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    pooling = content("1_Pooling/config.json")
    kinds = [name for name, value in pooling.items() if value is True]
    mean = embedder.network.config.pooling == "mean"
    assert kinds == ["pooling_mode_mean_tokens" if mean else "pooling_mode_cls_token"]
    assert pooling["word_embedding_dimension"] == 32
    first = content("sentence_bert_config.json")
    assert first["max_seq_length"] == LONGEST
    assert first["model_args"] == {"add_pooling_layer": False}
    assert first["do_lower_case"] is False  # the vocabulary is cased
    library = content("config_sentence_transformers.json")
    assert library["similarity_fn_name"] == "cosine"
    assert not library["prompts"]
    assert (folder / "tokenizer.model").read_bytes() == embedder.tokenizer.model
    names = content("tokenizer_config.json")
    tokenizer = embedder.tokenizer
    pieces = [tokenizer.piece(number) for number in range(tokenizer.vocabulary_size)]
    assert names.get("mask_token") == (MASK if MASK in pieces else None)


def test_sentence_transformers_computes_the_same_vectors(exported):
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    embedder, folder = exported
    model = library.SentenceTransformer(str(folder), device="cpu")
    found = model.encode(TEXTS)
    np.testing.assert_allclose(found, embedder.embed(TEXTS).vectors, rtol=0, atol=2e-6)
    cosines = model.similarity(found, found).numpy()
    np.testing.assert_allclose(np.diag(cosines), 1, rtol=0, atol=1e-5)


def test_exporting_a_masked_model_as_a_sentence_encoder_is_refused(exported):
    embedder, folder = exported
    config = embedder.network.config
    masked = MaskedLanguageModel(config, embedder.tokenizer.vocabulary_size, LONGEST)
    recipe = SimpleNamespace(model=SimpleNamespace(network="encoder_only"))
    other = SimpleNamespace(model=masked, tokenizers={SOURCE: embedder.tokenizer}, recipe=recipe)
    with pytest.raises(ModelError, match="only sentence_encoder"):
        write_sentence_transformer(other, folder)
