"""A network for the copy task: it sees a token and both of its neighbours, no more."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from copy_task.data import CopyNetworkConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.losses.loss import Loss, LossSums
from trainer.recipe import TrainingRecipe


class CopyNetwork(nn.Module):
    """Embedding, a convolution over three tokens, and the embedding again as output matrix."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.neighbours = nn.Conv1d(width, width, kernel_size=3, padding=1)

    def forward(self, hidden_bt: Tensor, text_bt: Tensor, real_bt: Tensor, loss: Loss) -> LossSums:
        """Returns the loss's sums over the real tokens of the text (b, t)."""
        states_btd, real = self.states(hidden_bt, real_bt), real_bt.bool()
        return loss(states_btd[real], self.embedding.weight, text_bt[real])

    def states(self, hidden_bt: Tensor, real_bt: Tensor) -> Tensor:
        """Returns (b, t, width)."""
        x_btd = self.embedding(hidden_bt) * real_bt.unsqueeze(2)
        mixed_btd: Tensor = x_btd + self.neighbours(x_btd.transpose(1, 2)).transpose(1, 2)
        return mixed_btd

    def checkpoint_activations(self, on: bool) -> None:
        """One layer is not worth it."""


def build(recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]) -> nn.Module:
    """The network of a recipe."""
    assert isinstance(recipe.model, CopyNetworkConfig)
    return CopyNetwork(tokenizers[TEXT].vocabulary_size, recipe.model.width)


def guesses(network: CopyNetwork, hidden_bt: Tensor, real_bt: Tensor) -> Tensor:
    """The likeliest token at each place, (b, t)."""
    states_btd = network.states(hidden_bt, real_bt)
    return torch.argmax(states_btd @ network.embedding.weight.T, dim=2)
