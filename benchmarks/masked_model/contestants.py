"""The contestants of masked_model.py: their settings, and the captions in their forms."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contestants import HUGGING_FACE
from benchmarks.support.contestants import Script, Transloom, hugging_face_training
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import prepared_recipe, save_ids
from benchmarks.support.environments import PEERS, environment_with
from cluster.recipe import Recipe
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import PackedBatchingConfig
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tasks.masking import vocabulary_of
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers
from model.config.encoder_only import EncoderOnlyConfig

HERE = Path(__file__).resolve().parent
RECIPE = "multi30k-masked"


@dataclass(frozen=True)
class Captions:
    """The prepared captions, and what the recipe says of the network and a step."""

    overrides: list[str]  # of the recipe: where the captions and the dataset are
    ids: Path  # .npy, all captions one after another, each with BOS and EOS
    tokenizer: Tokenizer
    recipe: Recipe
    tokens_of_each: float  # tokens that are read for each one that is to be told

    @property
    def batching(self) -> PackedBatchingConfig:
        assert isinstance(self.recipe.batching, PackedBatchingConfig)
        return self.recipe.batching

    @property
    def model(self) -> EncoderOnlyConfig:
        assert isinstance(self.recipe.model, EncoderOnlyConfig)
        return self.recipe.model

    @property
    def rows(self) -> int:
        """Rows of a step."""
        micro_batch = self.batching.max_tokens_per_micro_batch // self.batching.context_length
        return micro_batch * self.batching.micro_batches_per_step


def export_captions(folder: Path, data: str | None) -> Captions:
    """Prepares the captions, and writes the same ids once more for the other."""
    overrides = [f"data.dataset={folder / 'dataset'}", *corpus_overrides(RECIPE, data)]
    recipe = prepared_recipe(RECIPE, overrides)
    store, manifest = open_dataset(recipe.data)
    tokenizer = load_tokenizers(store, manifest)[TEXT]
    save_ids(recipe, folder / "ids.npy")
    reader = WindowReader(store, manifest, recipe.data_settings)
    units = reader.layout(0, 0).units
    batches = reader.fetch(0, 0, 0, len(units))
    read = sum(len(batch.fields[TEXT].ids) for batch in batches)
    each = read / int(units.sum())
    return Captions(overrides, folder / "ids.npy", tokenizer, recipe, each)


def transloom(captions: Captions, threads: int, overrides: list[str]) -> Transloom:
    return Transloom(
        RECIPE,
        threads,
        [*captions.overrides, *overrides],
        tokens_of_each=captions.tokens_of_each,
    )


def hugging_face(captions: Captions, threads: int, torch_index: str | None) -> Script:
    model, tokenizer = captions.model, captions.tokenizer
    settings = {
        "threads": threads,
        "ids": str(captions.ids),
        "context": captions.batching.context_length,
        "mask": vocabulary_of(tokenizer).mask,
        "special": [tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id],
        "model": {
            "vocab_size": tokenizer.vocabulary_size,
            "num_hidden_layers": model.layers,
            "hidden_size": model.width,
            "num_attention_heads": model.heads,
            "intermediate_size": model.inner_width,
            "max_position_embeddings": captions.batching.context_length,
            "type_vocab_size": model.segments,
            "hidden_dropout_prob": model.dropout,
            "attention_probs_dropout_prob": model.attention_dropout,
            "pad_token_id": tokenizer.pad_id,
        },
        "training": hugging_face_training(captions.recipe, captions.rows),
    }
    python = environment_with(HUGGING_FACE, PEERS / "hugging-face", torch_index)
    return Script(HERE / "hugging_face.py", settings, threads, python)
