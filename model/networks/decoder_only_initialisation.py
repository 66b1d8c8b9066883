"""The weights that a decoder-only network starts from, GPT-2's, for every form of it.

    matrices, embeddings, learned positions   normal, standard deviation 0.02 (Radford et al. 2018,
                                              §4.1)
    output projections of sub-layers          the same, divided by √(2 · layers), the number of
                                              sums on the residual path (Radford et al. 2019, §2.3)
    biases 0, norms 1 and 0

Llama's paper names none; Hugging Face starts it from 0.02 as well, without the division.
All numbers come from torch's default generator, in a fixed order: seed it before.
"""

import math

from torch import nn

from model.blocks.embeddings import Embedding
from model.blocks.feed_forward import FeedForward
from model.blocks.grouped_attention import GroupedQueryAttention
from model.blocks.learned_positions import LearnedPositions
from model.blocks.norm import RMSNorm
from model.blocks.swiglu import SwiGLU

SPREAD = 0.02


def initialise_decoder_only(root: nn.Module, layers: int) -> None:
    """Fills every parameter below `root` anew.

    Args:
        layers: of the network.
    """
    on_the_residual_path = set()
    for module in root.modules():
        if isinstance(module, GroupedQueryAttention):
            on_the_residual_path.add(module.output)
        elif isinstance(module, FeedForward | SwiGLU):
            on_the_residual_path.add(module.outer)
    for module in root.modules():
        if isinstance(module, nn.Linear):
            sums = 2 * layers if module in on_the_residual_path else 1
            nn.init.normal_(module.weight, std=SPREAD / math.sqrt(sums))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Embedding | LearnedPositions):
            nn.init.normal_(module.weight, std=SPREAD)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
