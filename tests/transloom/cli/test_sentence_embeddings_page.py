"""Run the commands of docs/how-to/sentence-embeddings.md in order with smaller recipes."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from support.pages import commands, run_inline
from support.tasks import embedding_values, masked_values
from transformers import AutoTokenizer

from run_store.checkpoints.checkpoint import newest_intact

pytestmark = pytest.mark.long

PAGE = "how-to/sentence-embeddings.md"
PIECES = 150
SHORT = {"max_steps": 2, "validate_every_steps": 2}


def write_masked():
    values = masked_values(Path("datasets/multi30k-masked"))
    for corpus in values["data"]["train"]:
        corpus["part"] = [0, 0.05]
    values["trainer"] |= SHORT
    values["tokenizer"] = {"vocabulary_size": PIECES}
    values["batching"] |= {"context_length": 64}
    Path("multi30k-masked").write_text(yaml.safe_dump(values | {"name": "multi30k-masked"}))


def write_embedding():
    """Write the embedding recipe, with the hash of the tokenizer that must already exist."""
    values = embedding_values(Path("datasets/multi30k-embedding"))
    model = Path("datasets/multi30k-masked/tokenizer.model")
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    values["tokenizer"] = {"vocabulary_size": PIECES, "model": str(model), "model_sha256": sha256}
    values["batching"] |= {"context_length": 64, "max_tokens_per_micro_batch": 768}
    values["data"] |= {"max_source_length": 63, "max_target_length": 63}
    values["data"]["tests"] = {"de-fr": values["data"]["validation"]}
    values["trainer"] |= SHORT
    Path("multi30k-embedding").write_text(yaml.safe_dump(values | {"name": "multi30k-embedding"}))


def test_the_commands_of_the_sentence_embeddings_page_succeed(transloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_masked()  # takes precedence over the built-in recipe
    found = commands(PAGE)
    assert [command for command, *_ in found] == [
        *("prepare", "prepare", "train", "embed", "evaluate", "export"),
        *("train", "train"),
    ]
    outputs = []
    for command in found:
        if command == ["prepare", "multi30k-embedding"]:
            write_embedding()
        outputs.append(run_inline(transloom, command).output)
    vectors = [json.loads(line)["vector"] for line in outputs[3].strip().split("\n")]
    assert [len(vector) for vector in vectors] == [32, 32]
    assert "retrieval_accuracy" in outputs[4]
    assert AutoTokenizer.from_pretrained("exported").mask_token == "<mask>"
    assert Path("exported/modules.json").is_file()
    tuned = Path("runs/multi30k-embedding,trainer.init_from=runs_multi30k-masked")
    log = (tuned / "log.txt").read_text()
    assert re.search(
        r"the encoder is taken from .* with [\d,]+ weights\. Newly initialized: none;", log
    )
    assert "not taken: output_bias, head.dense.weight" in log
    checkpoint, _ = newest_intact(tuned / "checkpoints")
    assert checkpoint.header.parent.step == 2
