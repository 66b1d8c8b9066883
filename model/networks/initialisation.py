"""Initialisation of the weights.

    initialise_glorot   the encoder-decoder
    initialise_normal   networks with one stack: GPT-2's weights for the decoder-only network,
                        BERT's for the encoder

Both functions set biases to 0, and the weights of norms to 1. All random numbers come from torch's
default generator, in the order in which modules are registered: seed the generator first.
"""

import math
from collections.abc import Callable

from torch import nn

from model.blocks.attention import CrossAttention, SelfAttention
from model.blocks.embeddings import Embedding
from model.blocks.feed_forward import FeedForward
from model.blocks.learned_positions import LearnedPositions
from model.blocks.norm import RMSNorm
from model.blocks.swiglu import SwiGLU

INIT_STD = 0.02


def initialise_glorot(root: nn.Module) -> None:
    """Initialise every parameter below `root` as in reimplementations of the paper's network.

    The paper does not specify initial weights. This function uses those of tensor2tensor (Vaswani
    et al. 2018) and fairseq (Ott et al. 2019):

        embeddings        normal, standard deviation width^-½, so that √width · embedding has
                          variance 1 (both; only fairseq sets the row of padding to 0)
        other matrices    uniform Glorot (Glorot & Bengio 2010; both)
        Q, K and V        as if the three were one (3 · width, width) matrix, that is Glorot with
                          gain 1/√2 for each (fairseq); also where K and V have fewer heads
        SwiGLU            Glorot for each of the gate and inner matrices, which are stored as one
    """
    _fill(
        root,
        lambda linear: nn.init.xavier_uniform_(linear.weight),
        lambda vectors: nn.init.normal_(vectors.weight, std=vectors.weight.shape[1] ** -0.5),
    )
    for module in root.modules():
        if isinstance(module, SelfAttention):
            _glorot(module.query_key_value, 3 * module.query_key_value.in_features)
        elif isinstance(module, CrossAttention):
            _glorot(module.query, 3 * module.query.in_features)
            _glorot(module.key_value, 3 * module.key_value.in_features)
        elif isinstance(module, SwiGLU):
            _glorot(module.gate_and_inner, module.outer.in_features)


def initialise_normal(root: nn.Module, residual_sums: int = 1) -> None:
    """Initialise every parameter of the modules below `root` as in GPT-2 and BERT.

        matrices, embeddings, positions, segments   normal, standard deviation 0.02 (Radford et al.
                                                    2018, §4.1; Devlin et al. 2019)
        output projections of sub-layers            the same, divided by √`residual_sums` (Radford
                                                    et al. 2019, §2.3)

    Llama's paper specifies no initial weights; Hugging Face uses 0.02 for Llama, too, without the
    division. BERT's code truncates the distribution at two standard deviations. Hugging Face's code
    and this function do not. Parameters of `root` itself stay unchanged.

    Args:
        residual_sums: number of residual sums in the network, two per layer; 1 leaves out the
            division.
    """
    onto_the_residual_path = set()
    for module in root.modules():
        if isinstance(module, SelfAttention):
            onto_the_residual_path.add(module.output)
        elif isinstance(module, FeedForward | SwiGLU):
            onto_the_residual_path.add(module.outer)

    def fill_matrix(linear: nn.Linear) -> None:
        sums = residual_sums if linear in onto_the_residual_path else 1
        nn.init.normal_(linear.weight, std=INIT_STD / math.sqrt(sums))

    _fill(root, fill_matrix, lambda vectors: nn.init.normal_(vectors.weight, std=INIT_STD))


def _fill(
    root: nn.Module,
    fill_matrix: Callable[[nn.Linear], object],
    fill_vectors: Callable[[Embedding | LearnedPositions], object],
) -> None:
    for module in root.modules():
        if isinstance(module, nn.Linear):
            fill_matrix(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Embedding | LearnedPositions):
            fill_vectors(module)


def _glorot(projection: nn.Linear, rows: int) -> None:
    """Fill a matrix from Glorot's uniform distribution, as if the matrix had this many rows."""
    bound = math.sqrt(6 / (projection.in_features + rows))
    nn.init.uniform_(projection.weight, -bound, bound)
