"""The encoder with a head for labels of texts or of their tokens (Devlin et al. 2019, §4).

    texts    hidden state of a text's first token ─▶ dense ─▶ tanh ─▶ dropout ─▶ output ─▶ loss
    tokens   hidden states of words' first tokens ─▶ dropout ─▶ output ─▶ loss

The dense layer is BERT's pooler. In addition to the encoder's parameters
(`model.networks.encoder_only`), there are `pooler.{weight,bias}` (d, d), for texts only, and
`classifier.weight` (l, d) and `classifier.bias` (l,).

Shape suffixes as in `model.networks.encoder_only`, and l labels, m tokens (one per text, or one per
word) whose label is predicted.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.blocks.dropout import Dropout
from model.blocks.linear import Linear, aligned, product
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig
from model.config.transformer import AttentionBackend
from model.heads.token_prediction import TokenPredictor
from model.networks.encoder_only import EncoderOnly
from model.networks.initialisation import initialise_normal


class LabelPredictions(NamedTuple):
    """Predictions of a network for tokens or texts with known labels.

    Attributes:
        nll_m: negative log-likelihood of each known label, fp32, in nats.
        best_m: most probable label of each token or text.
    """

    nll_m: Tensor
    best_m: Tensor


@torch.no_grad()
def label_predictions(hidden_md: Tensor, weight_ld: Tensor, target_m: Tensor) -> LabelPredictions:
    """Return the predictions for tokens or texts with known labels.

    Validation uses this function in place of a `Loss`.
    """
    logits_ml = product(hidden_md, weight_ld).float()
    of_target_m = logits_ml.gather(1, target_m.unsqueeze(1)).squeeze(1)
    return LabelPredictions(logits_ml.logsumexp(dim=1) - of_target_m, logits_ml.argmax(dim=1))


class LabelModel(TokenPredictor):
    """Encoder with a classifier.

    Attributes:
        width: width of the hidden states, d.
        labels: number of labels, l.
    """

    def __init__(
        self,
        config: EncoderOnlyConfig,
        vocabulary_size: int,
        context_length: int,
        labels: int,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Build and initialise the network; seed torch first.

        Args:
            config: a LabelTextsConfig if labels belong to texts, another EncoderOnlyConfig if they
                belong to tokens.

        Raises:
            ModelError: the backend does not support the configured dropout of attention weights.
        """
        super().__init__()
        self.encoder = EncoderOnly(config, vocabulary_size, context_length, attention_backend)
        pools = isinstance(config, LabelTextsConfig)
        self.pooler = Linear(config.width, config.width) if pools else None
        self.dropout = Dropout(config.dropout)
        self.classifier = Linear(config.width, labels)
        self.width = config.width
        self.labels = labels
        initialise_normal(self)

    def outputs(self, hidden_md: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._ready(hidden_md), aligned(self.classifier.weight), self.classifier.bias

    def logits(self, hidden: Tensor) -> Tensor:
        """Convert the encoder's hidden states (…, d) into unnormalised log-probabilities (…, l)."""
        logits: Tensor = self.classifier(self._ready(hidden))
        return logits

    def _ready(self, hidden: Tensor) -> Tensor:
        if self.pooler is not None:
            hidden = self.pooler(hidden).tanh()
        ready: Tensor = self.dropout(hidden)
        return ready
