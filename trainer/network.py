"""The network of a recipe, with its initial weights and without an engine, as translation needs."""

from data_pipeline.dataset.manifest import SOURCE, TARGET
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.transformer import Transformer, Vocabulary
from trainer.randomness import seed_torch
from trainer.recipe import TrainingRecipe


def build_model(recipe: TrainingRecipe, tokenizers: dict[str, Tokenizer]) -> Transformer:
    """The model with its initial weights, which follow from the recipe's seed."""
    seed_torch(recipe.seed, "weights")
    return Transformer(recipe.model, vocabulary_of(tokenizers), recipe.engine.attention)


def vocabulary_of(tokenizers: dict[str, Tokenizer]) -> Vocabulary:
    """The vocabulary that the model needs to know of its tokenizers."""
    target = tokenizers[TARGET]
    return Vocabulary(
        source_size=tokenizers[SOURCE].vocabulary_size,
        target_size=target.vocabulary_size,
        pad_id=target.pad_id,
        bos_id=target.bos_id,
        eos_id=target.eos_id,
    )
