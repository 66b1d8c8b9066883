"""Contestants of masked_model.py, with their commands and settings."""

from pathlib import Path

from benchmarks.support.contestants import Script, Transloom, hugging_face_training
from benchmarks.support.environments import hugging_face_python
from benchmarks.support.packed_text import PackedText
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tasks.masking import vocabulary_of
from model.config.encoder_only import EncoderOnlyConfig

HERE = Path(__file__).resolve().parent
RECIPE = "multi30k-masked"


def transloom(captions: PackedText, threads: int, overrides: list[str]) -> Transloom:
    """Return the number of tokens read for each recorded, that is hidden, token."""
    store, manifest = open_dataset(captions.recipe.data)
    reader = WindowReader(store, manifest, captions.recipe.data_settings)
    units = reader.layout(0, 0).units
    batches = reader.fetch(0, 0, 0, len(units))
    each = sum(len(batch.fields[TEXT].ids) for batch in batches) / int(units.sum())
    return Transloom(RECIPE, threads, [*captions.overrides, *overrides], tokens_of_each=each)


def hugging_face(captions: PackedText, threads: int, torch_index: str | None) -> Script:
    model, tokenizer = captions.recipe.model, captions.tokenizer
    assert isinstance(model, EncoderOnlyConfig)
    settings = {
        "threads": threads,
        "ids": str(captions.ids),
        "context": captions.context,
        "mask": vocabulary_of(tokenizer).mask,
        "special": [tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id],
        "model": {
            "vocab_size": tokenizer.vocabulary_size,
            "num_hidden_layers": model.layers,
            "hidden_size": model.width,
            "num_attention_heads": model.heads,
            "intermediate_size": model.inner_width,
            "max_position_embeddings": captions.context,
            "type_vocab_size": model.segments,
            "hidden_dropout_prob": model.dropout,
            "attention_probs_dropout_prob": model.attention_dropout,
            "pad_token_id": tokenizer.pad_id,
        },
        "training": hugging_face_training(captions.recipe, captions.rows),
    }
    return Script(HERE / "hugging_face.py", settings, threads, hugging_face_python(torch_index))
