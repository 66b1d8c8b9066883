"""Encoders with a head that predicts labels of some tokens, such as their original ids.

    ids ─▶ encoder ─▶ hidden states of some tokens ─▶ head ─▶ output matrix and bias ─▶ loss

Shape suffixes as in `model.networks.encoder_only`, m tokens with a label, and l labels.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from model.blocks.packing import Packing
from model.losses.loss import Loss, LossSums, with_bias_as_weights
from model.networks.encoder_only import EncoderOnly


class EncoderNetwork(nn.Module):
    """Network with an attribute `encoder`; the names of stored weights depend on this name."""

    encoder: EncoderOnly

    def checkpoint_activations(self, on: bool) -> None:
        """See `EncoderOnly.checkpoint_activations`."""
        self.encoder.checkpoint_activations(on)


class TokenPredictor(EncoderNetwork):
    """Encoder that predicts labels. `forward` uses all parameters, as ZeRO-3 requires."""

    def forward(
        self,
        ids_bt: Tensor,
        segment_bt: Tensor,
        position_bt: Tensor,
        part_bt: Tensor,
        place_m: Tensor,
        target_m: Tensor,
        loss: Loss,
        known: Sequence[Packing] = (),
    ) -> LossSums:
        """Return the loss's sums over the tokens with a label.

        Args:
            ids_bt, segment_bt, position_bt, part_bt: see `EncoderOnly.forward`.
            place_m: indices in the flattened batch of the tokens whose label is predicted.
            target_m: labels of these tokens.
            loss: called with vectors (m, d'), a matrix (l, d') and targets (m,). The columns beyond
                d contain the output's bias (see `with_bias_as_weights`).
            known: the packing of the parts, if the host knows it.
        """
        hidden_btd = self.encoder(ids_bt, segment_bt, position_bt, part_bt, *known)
        outputs = self.outputs(hidden_btd.flatten(0, 1).index_select(0, place_m))
        return loss(*with_bias_as_weights(*outputs), target_m)

    @abstractmethod
    def outputs(self, hidden_md: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the head's vectors (m, d), and the output's matrix (l, d) and bias (l,).

        Read the weights in each pass and never store them: under ZeRO-3, each access gathers the
        partitioned weights.
        """
