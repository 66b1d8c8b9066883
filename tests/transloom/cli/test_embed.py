"""`transloom embed` and other commands on runs of sentence embeddings."""

import json
from io import BytesIO, TextIOWrapper

import numpy as np
import pytest
import torch
from support.runs import trained_run
from support.tasks import embedding_values

import transloom as transloom_module
from run_store.errors import RunMismatchError
from transloom.inference import sentence_embedder
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.sentence_embedder import SentenceEmbedder

TEXTS = ["the cat is here", "il détestait la salade", "", "he hated salad", 'a "quoted"\u2028cat']


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run that was trained for 20 steps."""
    folder = tmp_path_factory.mktemp("embedding")
    values = embedding_values(folder / "dataset")
    return trained_run(values, folder, 20, "embedding")


@pytest.fixture(scope="module")
def embedder(run):
    return SentenceEmbedder.load(run)


@torch.no_grad()
def alone(embedder, text):
    """Return the vector of a text, computed in a batch of one."""
    tokenizer = embedder.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode([text])[0].tolist()][: embedder.longest - 1]
    ids_bt = torch.tensor([[*ids, tokenizer.eos_id]])
    zeros = torch.zeros_like(ids_bt)
    position_bt = torch.arange(ids_bt.shape[1]).unsqueeze(0)
    return embedder.network.embed(ids_bt, zeros, position_bt, zeros)[0].numpy()


def told(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.removesuffix("\n").split("\n")]


def test_embed_writes_json_lines_and_arrays_of_vectors(transloom, run, embedder, tmp_path, capsys):
    found = told(transloom("embed", run, *TEXTS))
    assert [line["text"] for line in found] == TEXTS
    vectors = np.array([line["vector"] for line in found], dtype=np.float32)
    expected = np.stack([alone(embedder, text) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    out = tmp_path / "texts.npy"
    transloom("embed", run, "--input", file, "--out", out)
    array = np.load(out, allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (5, 32))
    assert np.array_equal(array, vectors)  # JSON contains all digits
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []


def test_a_sentence_is_closer_to_its_translation_than_to_another_sentence(embedder):
    both = embedder.embed(["il détestait la salade", "he hated salad", "did they sleep?"]).vectors
    assert both[0] @ both[1] > both[0] @ both[2]


def test_vectors_of_many_texts_have_the_order_of_the_texts(embedder, monkeypatch):
    texts = [" ".join(["cat"] * (1 + 7 * n % 5)) + f" {n}" for n in range(23)]
    expected = embedder.embed(texts)
    assert expected.cut == []
    monkeypatch.setattr(sentence_embedder, "TEXTS_OF_A_PART", 4)
    monkeypatch.setattr("transloom.inference.batch_size.TEXTS_AT_ONCE", 3)
    found = embedder.embed(texts)
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=2e-6)
    for text, vector in zip(texts, found.vectors, strict=True):
        np.testing.assert_allclose(vector, alone(embedder, text), rtol=0, atol=2e-6)
    long = " ".join(["cat"] * 30)
    cut = embedder.embed([*texts[:5], long, texts[5], long])
    assert cut.cut == [5, 7]
    np.testing.assert_allclose(cut.vectors[7], alone(embedder, long), rtol=0, atol=2e-6)
    assert embedder.embed([]).vectors.shape == (0, 32)


@pytest.mark.long
def test_the_python_api_returns_the_same_vectors(run, embedder):
    texts = [*TEXTS[:3], "two\nlines", "-- no option"]
    found = np.array(transloom_module.Run(run).embed(texts), dtype=np.float32)
    expected = embedder.embed([*texts[:3], "two lines", texts[4]]).vectors
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_embed_reports_truncated_texts(transloom, run, embedder):
    result = transloom("embed", run, "a cat", "cat " * 40)
    assert len(told(result)) == 2
    assert "only the first 24 tokens, including BOS and EOS, of 1 text" in result.stderr


def test_embed_reads_texts_from_standard_input_or_arguments(transloom, run, monkeypatch):
    data = "the cat\né\n".encode()
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data), encoding="latin-1"))
    from transloom.inference.text_input import read_texts

    assert read_texts([], None) == ["the cat", "é"]
    result = transloom("embed", run, "a cat", "--input", "file.txt")
    assert result.exit_code == 2
    assert "both given" in result.output


def test_bf16_vectors_are_close_to_fp32_vectors(run, embedder):
    rounded = SentenceEmbedder.load(run, precision="bf16").embed(TEXTS).vectors
    assert ((rounded * embedder.embed(TEXTS).vectors).sum(axis=1) > 0.99).all()


def test_an_embedding_run_is_evaluated_but_refused_by_fill_and_explain(transloom, run):
    (found,) = told(transloom("evaluate", run, "--set", "phrasebook", "--json"))
    assert found["phrasebook"]["retrieval_accuracy"] > 50  # percent; chance gives 1
    with pytest.raises(RunMismatchError, match=r"for sentence_embedding, .*: use transloom embed"):
        MaskFiller.load(run)
    with pytest.raises(RunMismatchError, match=r"predicts one vector .*: use transloom embed"):
        transloom("explain", run, "the cat")


def test_the_figure_of_an_embedding_run_has_all_parameters_in_boxes(transloom, run, embedder):
    (said,) = told(transloom("model", "show", run, "--json"))
    count = sum(p.numel() for p in embedder.network.parameters())
    assert sum(said["parameters_by_box"].values()) == said["blueprint"]["parameters"] == count


def test_an_embedding_run_is_exported_for_sentence_transformers(transloom, run, tmp_path):
    result = transloom("export", run, tmp_path / "exported")
    assert result.exit_code == 0, result.output
    assert "SentenceTransformer" in result.output
    files = {path.name for path in (tmp_path / "exported").iterdir()}
    assert {"modules.json", "1_Pooling", "2_Normalize", "config.json", "tokenizer.json"} <= files
