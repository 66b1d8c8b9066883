"""The weights a run starts from.

The paper names none; these are the choices of the reference implementations that reproduced it
(tensor2tensor, Vaswani et al. 2018; fairseq, Ott et al. 2018):

    embeddings        normal, standard deviation width^-½, so that √width · embedding has variance
                      1 (both; fairseq sets the row of padding to 0, here it is as the others)
    other matrices    uniform Glorot (Glorot & Bengio 2010; both)
    Q, K and V        the same as if the three were one (3 · width, width) matrix, that is Glorot
                      with gain 1/√2 for each (fairseq); also where K and V have fewer heads
    SwiGLU's gate and inner matrix, which are one here: Glorot for each
    biases 0, norms 1 and 0 (both)

All numbers come from torch's default generator, in a fixed order: seed it before.
"""

import math

from torch import nn

from model.blocks.attention import CrossAttention, SelfAttention
from model.blocks.embeddings import Embedding
from model.blocks.norm import RMSNorm
from model.blocks.swiglu import SwiGLU


def initialise(root: nn.Module) -> None:
    """Fills every parameter below `root` anew."""
    for module in root.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
    for module in root.modules():
        if isinstance(module, SelfAttention):
            _fused_glorot(module.query_key_value)
        elif isinstance(module, CrossAttention):
            _fused_glorot(module.query)
            _fused_glorot(module.key_value)
        elif isinstance(module, SwiGLU):
            _glorot(module.gate_and_inner, module.outer.in_features)


def _fused_glorot(projection: nn.Linear) -> None:
    _glorot(projection, 3 * projection.in_features)


def _glorot(projection: nn.Linear, rows: int) -> None:
    """Fills a matrix as if it had so many rows."""
    bound = math.sqrt(6 / (projection.in_features + rows))
    nn.init.uniform_(projection.weight, -bound, bound)
