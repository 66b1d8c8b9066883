"""The encoder with a head that tells labels: of texts or of their tokens (Devlin et al. 2019, §4).

    of texts    hidden state of a text's first token ─▶ dense ─▶ tanh ─▶ dropout ─▶ output ─▶ loss
    of tokens   hidden states of words' first tokens ─▶ dropout ─▶ output ─▶ loss

The dense layer is BERT's pooler. Names of parameters, beside those of the encoder
(`model.networks.encoder_only`): `pooler.{weight,bias}` (d, d), of texts alone; `classifier.weight`
(l, d), `classifier.bias` (l,).

Shape suffixes as in `model.networks.encoder_only`, l labels, and m tokens whose label is told.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.blocks.dropout import Dropout
from model.blocks.linear import Linear, product
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig
from model.config.transformer import AttentionBackend
from model.losses.loss import Loss, LossSums, with_bias_as_weights
from model.networks.encoder_only import EncoderOnly
from model.networks.initialisation import initialise_normal


class LabelPredictions(NamedTuple):
    """What a network says of labels that are known.

    Attributes:
        nll_m: the negative log-likelihood of each, fp32, in nats.
        best_m: the likeliest labels.
    """

    nll_m: Tensor
    best_m: Tensor


@torch.no_grad()
def label_predictions(hidden_md: Tensor, weight_ld: Tensor, target_m: Tensor) -> LabelPredictions:
    """Returns how well labels are told; it takes the place of a `Loss` in validation."""
    logits_ml = product(hidden_md, weight_ld).float()
    of_target_m = logits_ml.gather(1, target_m.unsqueeze(1)).squeeze(1)
    return LabelPredictions(logits_ml.logsumexp(dim=1) - of_target_m, logits_ml.argmax(dim=1))


class LabelModel(nn.Module):
    """The whole network. All parameters are used inside `forward`, as ZeRO-3 needs it.

    Attributes:
        width: of the hidden states, d.
        labels: how many there are, l.
    """

    def __init__(
        self,
        config: EncoderOnlyConfig,
        vocabulary_size: int,
        context_length: int,
        labels: int,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Builds and initialises the network; seed torch before.

        Args:
            config: a LabelTextsConfig, if a label is that of a text.

        Raises:
            ModelError: the backend has no dropout.
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

    def forward(
        self,
        ids_bt: Tensor,
        segment_bt: Tensor,
        position_bt: Tensor,
        part_bt: Tensor,
        place_m: Tensor,
        target_m: Tensor,
        loss: Loss,
    ) -> LossSums:
        """Returns the loss's sums over the labels.

        Args:
            ids_bt, segment_bt, position_bt, part_bt: see `EncoderOnly.forward`.
            place_m: where the tokens are in the flattened batch at which a label is told.
            target_m: these labels.
            loss: gets vectors (m, d'), a matrix (l, d') and targets (m,); the output's bias is in
                columns beyond d.
        """
        hidden_btd = self.encoder(ids_bt, segment_bt, position_bt, part_bt)
        ready_md = self._ready(hidden_btd.flatten(0, 1).index_select(0, place_m))
        # Looked up anew each time: under ZeRO-3 the look-up gathers partitioned weights.
        return loss(
            *with_bias_as_weights(ready_md, self.classifier.weight, self.classifier.bias), target_m
        )

    def checkpoint_activations(self, on: bool) -> None:
        """See `EncoderOnly.checkpoint_activations`."""
        self.encoder.checkpoint_activations(on)

    def logits(self, hidden: Tensor) -> Tensor:
        """Turns the encoder's hidden states (…, d) into unnormalised log-probabilities (…, l)."""
        logits: Tensor = self.classifier(self._ready(hidden))
        return logits

    def _ready(self, hidden: Tensor) -> Tensor:
        if self.pooler is not None:
            hidden = self.pooler(hidden).tanh()
        ready: Tensor = self.dropout(hidden)
        return ready
