"""The weights that an encoder-only network starts from, BERT's.

    matrices, embeddings, positions, segments   normal, standard deviation 0.02
    biases 0, norms 1 and 0

BERT's code cuts the distribution off at two deviations (Devlin et al. 2019, its `initializer_range`
of a truncated normal); Hugging Face's does not, nor does this. All numbers come from torch's
default generator, in a fixed order: seed it before.
"""

from torch import nn

from model.blocks.embeddings import Embedding
from model.blocks.learned_positions import LearnedPositions

SPREAD = 0.02


def initialise_encoder_only(root: nn.Module) -> None:
    """Fills every parameter of modules below `root` anew; a bias of `root` itself is its own."""
    for module in root.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=SPREAD)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Embedding | LearnedPositions):
            nn.init.normal_(module.weight, std=SPREAD)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
