"""The encoder with a head that predicts masked tokens (Devlin et al. 2019, §3.1, "Masked LM").

    hidden states of the masked tokens ─▶ dense ─▶ activation ─▶ norm ─▶ tied output + bias ─▶ loss

Only masked tokens pass through the head, because it contains the largest product. In addition to
the encoder's parameters (`model.networks.encoder_only`), there are `head.dense.{weight,bias}`
(d, d), `head.norm.{weight,bias}` and `output_bias` (v,). The output matrix is
`encoder.embedding.weight`.

Shape suffixes as in `model.networks.encoder_only`, and m masked tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.blocks.feed_forward import ACTIVATIONS
from model.blocks.linear import Linear, affine, aligned, product
from model.blocks.norm import norm_of
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import AttentionBackend
from model.heads.token_prediction import TokenPredictor
from model.losses.loss import MIN_CHUNK_TOKENS
from model.networks.encoder_only import EncoderOnly
from model.networks.initialisation import initialise_normal


class LabelLossSums(NamedTuple):
    """Sums over masked tokens, fp64 scalars.

    Attributes:
        nll: negative log-likelihood, in nats.
        right: number of masked tokens for which the original token is the most probable one.
    """

    nll: Tensor
    right: Tensor


@torch.no_grad()
def label_loss_sums(hidden_md: Tensor, weight_vd: Tensor, target_m: Tensor) -> LabelLossSums:
    """Return loss and number of correct predictions; validation uses it in place of a `Loss`."""
    nll, right = torch.zeros(2, dtype=torch.float64, device=hidden_md.device)
    for start in range(0, len(hidden_md), MIN_CHUNK_TOKENS):
        chunk = slice(start, start + MIN_CHUNK_TOKENS)
        logits_cv, target_c = product(hidden_md[chunk], weight_vd).float(), target_m[chunk]
        of_target_c = logits_cv.gather(1, target_c.unsqueeze(1)).squeeze(1)
        nll = nll + (logits_cv.logsumexp(dim=1) - of_target_c).double().sum()
        right = right + (logits_cv.argmax(dim=1) == target_c).sum()
    return LabelLossSums(nll, right)


class MaskedHead(nn.Module):
    """Layer between the encoder and the output matrix: dense, activation, norm."""

    def __init__(self, config: EncoderOnlyConfig) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = norm_of(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Convert hidden states (…, d) into inputs of the output matrix."""
        y: Tensor = self.norm(self.activation(self.dense(hidden)))
        return y


class MaskedLanguageModel(TokenPredictor):
    """Encoder with a masked-token head.

    Attributes:
        width: width of the hidden states, d.
    """

    def __init__(
        self,
        config: EncoderOnlyConfig,
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
        self.head = MaskedHead(config)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.width = config.width
        initialise_normal(self)

    def outputs(self, hidden_md: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.head(hidden_md), aligned(self.encoder.embedding.weight), self.output_bias

    def logits(self, hidden: Tensor) -> Tensor:
        """Convert the encoder's hidden states (…, d) into unnormalised log-probabilities (…, v)."""
        weight_vd = aligned(self.encoder.embedding.weight)
        return affine(self.head(hidden), weight_vd, self.output_bias)
