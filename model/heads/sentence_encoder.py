"""The encoder with sentence vectors in place of a head, trained by a contrastive loss.

    ids of 2 p sentences ─▶ encoder ─▶ hidden states ─▶ pooling ─▶ length 1 ─▶ vectors (2 p, d)
    vectors ─▶ cosines of p sources and p targets / temperature ─▶ loss in both directions

Each source has to identify its target among all p targets, and each target its source. The loss is
the mean of both cross-entropies (InfoNCE, van den Oord et al. 2018; in both directions Radford et
al. 2021; between languages Feng et al. 2022). Sentences i and p + i form a pair.

The encoder's parameters (`model.networks.encoder_only`) are the only ones. Pooling, cosines and the
loss are computed in fp32, whatever the precision of the encoder. In bf16, the rounding error of a
cosine is up to 0.004, and a temperature of 0.05 multiplies this error by twenty.

Shape suffixes as in `model.networks.encoder_only`, and p pairs; d is the vectors' width, too.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import AttentionBackend
from model.heads.token_prediction import EncoderNetwork
from model.networks.encoder_only import EncoderOnly
from model.networks.initialisation import initialise_normal

# Result of a loss: a tensor with a number per target, or a named tuple of sums.
L = TypeVar("L", bound=Tensor | tuple[Tensor, ...])


class SentenceEncoder(EncoderNetwork):
    """Encoder of sentences. `forward` uses all parameters, as ZeRO-3 requires.

    Attributes:
        width: width of the hidden states and of the vectors, d.
    """

    def __init__(
        self,
        config: SentenceEncoderConfig,
        vocabulary_size: int,
        context_length: int,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Build and initialise the network; seed torch first.

        Raises:
            ModelError: the backend does not support the configured dropout of attention weights.
        """
        super().__init__()
        self.encoder = EncoderOnly(config, vocabulary_size, context_length, attention_backend)
        self.config = config
        self.width = config.width
        initialise_normal(self)

    def forward(
        self,
        ids_bt: Tensor,
        segment_bt: Tensor,
        position_bt: Tensor,
        part_bt: Tensor,
        loss: Callable[[Tensor, Tensor, Tensor], L],
    ) -> L:
        """Return the loss's sums over pairs; each sum is the mean of both directions.

        Args:
            ids_bt, segment_bt, position_bt, part_bt: see `EncoderOnly.forward`; each row is a
                sentence, and p sources precede their p targets.
            loss: called for each direction with the vectors of one side, divided by the
                temperature, (p, d); the vectors of the other side, (p, d); and the index of each
                correct vector, (p,); see `model.losses.loss.Loss`.
        """
        vector_bd = self.embed(ids_bt, segment_bt, position_bt, part_bt)
        source_pd, target_pd = vector_bd.chunk(2)
        right_p = torch.arange(len(source_pd), device=ids_bt.device)
        temperature = self.config.temperature
        mean: L = _mean(
            loss(source_pd / temperature, target_pd, right_p),
            loss(target_pd / temperature, source_pd, right_p),
        )
        return mean

    def embed(
        self, ids_bt: Tensor, segment_bt: Tensor, position_bt: Tensor, part_bt: Tensor
    ) -> Tensor:
        """Return the sentences' vectors, fp32 (b, d), each of length 1."""
        hidden_btd = self.encoder(ids_bt, segment_bt, position_bt, part_bt)
        if self.config.pooling == "first":
            pooled_bd = hidden_btd[:, 0].float()
        else:
            padding_bt1 = (part_bt < 0).unsqueeze(2)
            sum_bd = hidden_btd.float().masked_fill(padding_bt1, 0.0).sum(dim=1)
            pooled_bd = sum_bd / (~padding_bt1).sum(dim=1)
        return F.normalize(pooled_bd, dim=1)


def _mean(one: Any, other: Any) -> Any:
    """Return the mean of two results of a loss, field by field."""
    if isinstance(one, Tensor):
        return (one + other) / 2
    return type(one)(*((a + b) / 2 for a, b in zip(one, other, strict=True)))
