"""Every model that `export` writes for Hugging Face can be fine-tuned by a recipe of `init`."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file
from support.recipes import tiny_values
from support.tasks import (
    case_values,
    embedding_values,
    language_model_values,
    language_values,
    masked_values,
    pair_masked_values,
)

from cluster.recipe import load_recipe
from data_pipeline.storage.phrasebook import phrasebook_pairs

pytestmark = pytest.mark.long

TWO_STEPS = [
    *("trainer.max_steps=2", "trainer.validate_every_steps=2", "checkpoints.every_steps=2"),
    *(
        "tracking.wandb=disabled",
        "cluster.ranks=1",
        "engine.numerics=fast",
        "engine.precision=fp32",
    ),
]
PAIRS = ("--source", "corpus.fr", "--target", "corpus.en")
MODELS = {
    "Marian": (tiny_values, PAIRS),
    "BERT": (masked_values, ("--text", "texts.txt")),
    "BERT of pairs": (pair_masked_values, PAIRS),
    "GPT-2": (lambda d: language_model_values(d, preset="gpt2"), ("--text", "texts.txt")),
    "Llama": (language_model_values, ("--text", "texts.jsonl")),
    "sentence-transformers": (lambda d: embedding_values(d, pooling="first"), PAIRS),
    "text classifier": (language_values, ("--text", "labels.jsonl")),
    "token classifier": (case_values, ("--text", "tags.conll")),
}


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """Write files of pairs, texts, labelled texts and tagged words to the current folder."""
    monkeypatch.chdir(tmp_path)
    pairs = phrasebook_pairs("train")[:200]
    for side, language in enumerate(("fr", "en")):
        Path(f"corpus.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
    english = [pair[1] for pair in pairs]
    Path("texts.txt").write_text("".join(f"{text}\n" for text in english))
    lines = {
        "texts": [{"text": text} for text in english],
        "labels": [
            {"text": t, "label": x} for p in pairs for t, x in zip(p, ("fr", "en"), strict=True)
        ],
    }
    for name, values in lines.items():
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(value)}\n" for value in values))
    tagged = ("".join(f"{word} lower\n" for word in text.lower().split()) for text in english)
    Path("tags.conll").write_text("\n".join(tagged))


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_can_be_fine_tuned_and_exported_again(transloom, corpora, name):
    values_of, files = MODELS[name]
    values = values_of(Path("datasets/first").absolute())
    del values["data"]["tests"]  # the small test set is used for training
    text = yaml.safe_dump(values)
    smaller = text.replace("phrasebook/train", "phrasebook/test").replace("size: 1000", "size: 300")
    Path("first.yaml").write_text(smaller)

    def run(*command):
        result = transloom(*command)
        assert result.exit_code == 0, result.output

    def train_and_export(recipe, exported):
        run("prepare", f"{recipe}.yaml")
        run("train", f"{recipe}.yaml", *TWO_STEPS, "--inline", "--run", f"runs/{recipe}")
        run("export", f"runs/{recipe}", exported)

    train_and_export("first", "exported")
    run("init", "tuned.yaml", *files, "--init-from", "exported")
    train_and_export("tuned", "again")
    first, tuned = (load_recipe(Path(f"{recipe}.yaml")) for recipe in ("first", "tuned"))
    assert tuned.task == first.task
    assert json.loads(Path("runs/tuned/run.json").read_text())["parent"]["run_id"] == "exported"
    assert "Newly initialized" not in Path("runs/tuned/log.txt").read_text()
    same = ["architectures", "vocab_size", "bos_token_id", "decoder_start_token_id", "id2label"]
    configs = [json.loads(Path(f, "config.json").read_text()) for f in ("exported", "again")]
    assert [configs[0].get(key) for key in same] == [configs[1].get(key) for key in same]
    before, after = (load_file(Path(f, "model.safetensors")) for f in ("exported", "again"))
    assert before.keys() == after.keys()
    # Two steps at a low rate change the weights little; newly initialized ones would differ more.
    assert all(abs(after[key] - before[key]).max() < 0.01 for key in before)
    assert any((after[key] != before[key]).any() for key in before)
