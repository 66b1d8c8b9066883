"""Recipe sections that describe the Marian model in a folder, for `transloom init --init-from`.

folder ──▶ network, tokenizers ──▶ `tokenizer`, `model` and `trainer.init_from`, as text
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import RecipeError
from data_pipeline.tokenizers.marian import MarianTokenizer
from foundation.strict_yaml import inline_yaml
from foundation.wording import counted, join_items
from trainer.start.model_folder import weights_files
from transloom.cli.recipe_scales import Scale
from transloom.cli.recipe_template import (
    OWN_MODEL,
    OWN_TOKENIZER,
    THEIR_MODEL,
    THEIR_TOKENIZER,
    THEIR_WEIGHTS,
    RecipePart,
    fill,
)

MAX_LISTED_TAGS = 8


@dataclass(frozen=True)
class ModelSections:
    """Sections of a recipe that depend on the origin of its model.

    Attributes:
        first_weights: lines of the section `trainer` that name the initial weights; None if these
            are random.
    """

    tokenizer: RecipePart
    model: RecipePart
    first_weights: RecipePart | None = None


def own_sections(scale: Scale) -> ModelSections:
    """Return the sections for a randomly initialized model whose size suits the corpus."""
    return ModelSections(
        fill(OWN_TOKENIZER, **scale.for_template()), fill(OWN_MODEL, **scale.for_template())
    )


def sections_of(folder: Path, tag: str | None) -> ModelSections:
    """Return the sections of a run that starts from the folder's weights.

    If the weights are in a PyTorch file, the function converts them, once.

    Args:
        tag: tag to prepend to each source sentence, for a model with several target languages.

    Raises:
        RecipeError: the model needs a tag.
        ModelError, TokenizerError: the network or a tokenizer cannot be read, or the tag does not
            exist.
    """
    from model.hugging_face.files import read_model  # imports torch
    from model.hugging_face.marian import from_marian

    tokenizer = MarianTokenizer.load(folder)
    if tokenizer.tags and tag is None:
        raise RecipeError(
            f"The model in {folder} has {counted(len(tokenizer.tags), 'tag')}, one for each target "
            "language: name the tag to prepend to each source sentence with --tag, such as "
            f"{join_items(tokenizer.tags[:MAX_LISTED_TAGS])}"
        )
    if tag is not None:
        tokenizer.tag_id(tag)
    weights_files(folder)
    network = from_marian(*read_model(folder))
    values = network.config.model_dump(mode="json", exclude={"network"}, exclude_none=True)
    settings = "\n".join(f"  {name}: {inline_yaml(value)}" for name, value in values.items())
    return ModelSections(
        tokenizer=fill(
            THEIR_TOKENIZER,
            pieces=tokenizer.vocabulary_size,
            folder=str(folder),
            sha256=hashlib.sha256(tokenizer.model).hexdigest(),
        ),
        model=fill(THEIR_MODEL, settings=RecipePart(settings)),
        first_weights=RecipePart(fill(THEIR_WEIGHTS, folder=str(folder)).rstrip("\n")),
    )
