"""The contestants of language_model.py: their commands, settings, and the text in their forms."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contestants import HUGGING_FACE
from benchmarks.support.contestants import ENDLESS, Script, hugging_face_training
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import prepared_recipe, save_ids
from benchmarks.support.environments import PEERS, environment_with
from cluster.recipe import Recipe
from data_pipeline.config.data import PackedBatchingConfig
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from model.config.decoder_only import DecoderOnlyConfig

HERE = Path(__file__).resolve().parent
RECIPE = "shakespeare-char"


@dataclass(frozen=True)
class Text:
    """The prepared text, and what the recipe says of the network and a step."""

    overrides: list[str]  # of the recipe: where the text and the dataset are
    ids: Path  # .npy, the whole text
    vocabulary: int
    recipe: Recipe

    @property
    def rows(self) -> int:
        """Rows of a step."""
        batching = self.recipe.batching
        return self.tokens // self.context * batching.micro_batches_per_step

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch of the recipe."""
        return self.recipe.batching.max_tokens_per_micro_batch

    @property
    def context(self) -> int:
        assert isinstance(self.recipe.batching, PackedBatchingConfig)
        return self.recipe.batching.context_length

    @property
    def model(self) -> DecoderOnlyConfig:
        assert isinstance(self.recipe.model, DecoderOnlyConfig)
        return self.recipe.model


def export_text(folder: Path, data: str | None) -> Text:
    """Prepares the text, and writes the same ids once more for the others."""
    overrides = [f"data.dataset={folder / 'dataset'}", *corpus_overrides(RECIPE, data)]
    recipe = prepared_recipe(RECIPE, overrides)
    store, manifest = open_dataset(recipe.data)
    save_ids(recipe, folder / "ids.npy")
    vocabulary = load_tokenizers(store, manifest)[TEXT].vocabulary_size
    return Text(overrides, folder / "ids.npy", vocabulary, recipe)


def plain_loop(text: Text, threads: int) -> Script:
    trainer = text.recipe.trainer
    settings = {
        "threads": threads,
        "ids": str(text.ids),
        "vocabulary": text.vocabulary,
        "layers": text.model.layers,
        "width": text.model.width,
        "heads": text.model.heads,
        "context": text.context,
        "rows": text.rows,
        "steps": ENDLESS,
        "betas": trainer.optimizer.betas,
        "epsilon": trainer.optimizer.epsilon,
        "weight_decay": trainer.optimizer.weight_decay,
        "clipping": trainer.gradient_clipping,
        "peak_rate": trainer.schedule.peak_learning_rate,
        "final_rate": trainer.schedule.final_learning_rate,
        "warmup_steps": trainer.schedule.warmup_steps,
        "decay_until_step": trainer.schedule.decay_until_step,
    }
    return Script(HERE / "plain_loop.py", settings, threads)


def hugging_face(text: Text, threads: int, torch_index: str | None) -> Script:
    settings = {
        "threads": threads,
        "ids": str(text.ids),
        "context": text.context,
        "model": {
            "vocab_size": text.vocabulary,
            "n_layer": text.model.layers,
            "n_embd": text.model.width,
            "n_head": text.model.heads,
            "n_positions": text.context,
            "activation_function": "gelu_pytorch_tanh",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "training": hugging_face_training(text.recipe, text.rows),
    }
    python = environment_with(HUGGING_FACE, PEERS / "hugging-face", torch_index)
    return Script(HERE / "hugging_face.py", settings, threads, python)
