"""The decoder-only Transformer, a language model (Radford et al. 2018, 2019; Touvron et al. 2023).

    token ids ─▶ embedding (+ positions) ─▶ layers ─▶ last norm ─▶ hidden ─▶ logits ─▶ loss

A row of a batch holds parts of documents one after another, and padding at its end. Positions and
attention begin anew at each part, so what stands beside a part in its row never changes a result:

    part_bt    0 0 0 0 1 1 2 2 2 -1      the number of the part within its row, -1 at padding
    positions  0 1 2 3 0 1 0 1 2  0

Attention is causal. Where a row has several parts, a mask keeps them apart, made once for all
layers; with `AttentionBackend.VARLEN` the loss is computed from one row of all parts
(`model.blocks.packing`), without padding and without a mask. Texts are continued by `prefill` and
`step` (`model.generation.sampling`).
Shape suffixes: b rows, t length, d model width, v vocabulary, n tokens without padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks.attention import Mask, additive_mask, refuse_packed_dropout
from model.blocks.cache import KeyValueCache
from model.blocks.dropout import Dropout
from model.blocks.embeddings import Embedding
from model.blocks.layers import LayerStack
from model.blocks.learned_positions import LearnedPositions
from model.blocks.linear import product
from model.blocks.packing import PackedMask, packing_of_parts, part_positions
from model.blocks.positions import SinusoidalPositions
from model.blocks.rotary import RotaryPositions, Rotation
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.losses.loss import Loss, LossSums
from model.networks.initialisation import initialise_normal


class DecoderOnly(LayerStack):
    """The whole network. All parameters are used inside `forward`, as ZeRO-3 needs it.

    Attributes:
        width: of the hidden states, d.
        context_length: the longest part. Learned positions have no more; others go on beyond.
        vocabulary_size: v.
        pad_id: what stands at padding, where it is never looked at.
    """

    def __init__(
        self,
        config: DecoderOnlyConfig,
        vocabulary_size: int,
        pad_id: int,
        context_length: int,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Builds and initialises the network; seed torch before.

        Args:
            attention_backend: None: the measured default.

        Raises:
            ModelError: the padding is no token, or the backend has no dropout.
        """
        super().__init__()
        if not 0 <= pad_id < vocabulary_size:
            raise ModelError(
                f"The padding's id is {pad_id}, but it must be below {vocabulary_size}, the size "
                "of the vocabulary. Train or choose a tokenizer that has padding."
            )
        refuse_packed_dropout(attention_backend, config.attention_dropout)
        self.config = config
        self.width = config.width
        self.context_length = context_length
        self.vocabulary_size = vocabulary_size
        self.pad_id = pad_id
        self.attention_backend = attention_backend
        # Sines and cosines are as large as vectors that √width has multiplied, as in their paper.
        scaled = config.positions == "sinusoidal"
        self.embedding = Embedding(vocabulary_size, self.width, scaled)
        self.output_embedding = (
            None if config.tie_embeddings else Embedding(vocabulary_size, self.width, scaled=False)
        )
        self.positions = _positions_of(config, context_length)
        self.dropout = Dropout(config.dropout)
        self.add_layers(config, config.layers, attention_backend, causal=True)
        initialise_normal(self, residual_sums=2 * config.layers)

    def forward(self, input_bt: Tensor, target_bt: Tensor, part_bt: Tensor, loss: Loss) -> LossSums:
        """Returns the loss sums over the targets, padding left out.

        Args:
            target_bt: the token that comes after each token of the input.
            part_bt: int64, the number of each token's part in its row: 0, 1, … in this order, and
                -1 at the padding at the end of the row.
            loss: gets hidden states (n, d), the output matrix (v, d) and targets (n,), row by row.

        Raises:
            ModelError: positions are learned, and a part is longer than `context_length`.
        """
        packed = self.attention_backend is AttentionBackend.VARLEN
        hidden = self._hidden_packed if packed else self._hidden_padded
        hidden_nd, target_n = hidden(input_bt, target_bt, part_bt)
        return loss(hidden_nd, self.output_weight, target_n)

    def _hidden_padded(
        self, input_bt: Tensor, target_bt: Tensor, part_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the hidden states (n, d) of the real tokens, and their targets (n,)."""
        hidden_btd = self.hidden(input_bt, part_bt)
        # Only real tokens are projected to logits, the widest product of a small model.
        real_n = (part_bt >= 0).flatten().nonzero().squeeze(1)
        hidden_nd = hidden_btd.flatten(0, 1).index_select(0, real_n)
        return hidden_nd, target_bt.flatten().index_select(0, real_n)

    def _hidden_packed(
        self, input_bt: Tensor, target_bt: Tensor, part_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns what `_hidden_padded` does, in the same order, without computing padding."""
        packing = packing_of_parts(part_bt)
        self._check_length(packing.max_seqlen)
        hidden_1nd = self._run(
            packing.pack(input_bt),
            packing.positions_n,
            packing.max_seqlen,
            PackedMask(packing, packing),
        )
        return hidden_1nd[0], packing.pack(target_bt)[0]

    def hidden(self, input_bt: Tensor, part_bt: Tensor) -> Tensor:
        """Returns the hidden states (b, t, d) from which each next token is predicted."""
        t = part_bt.shape[1]
        if bool((part_bt > 0).any()):
            position, mask = part_positions(part_bt), _causal_part_mask(part_bt)
        else:
            position, mask = torch.arange(t, device=part_bt.device), None
        if t > self.context_length and isinstance(self.positions, LearnedPositions):
            self._check_length(int(part_positions(part_bt).max()) + 1)
            position = position.clamp(max=self.context_length - 1)  # at padding alone
        return self._run(input_bt, position, t, mask)

    def empty_caches(self) -> list[KeyValueCache]:
        """Return a cache for each layer, for `prefill` to fill."""
        return [KeyValueCache() for _ in self.layers]

    def prefill(
        self, prompt_bt: Tensor, lengths_b: Tensor, caches: Sequence[KeyValueCache]
    ) -> Tensor:
        """Return the hidden states (b, d) after each prompt, and fill the caches, in one pass.

        Args:
            prompt_bt: padded at the end; `lengths_b` counts the real tokens.
            caches: empty ones.
        """
        t = prompt_bt.shape[1]
        self._check_length(t)
        position_t = torch.arange(t, device=prompt_bt.device)
        hidden_btd = self._run(prompt_bt, position_t, t, None, caches)
        last_b1d = (lengths_b - 1)[:, None, None].expand(-1, 1, self.width)
        return hidden_btd.gather(1, last_b1d).squeeze(1)

    def step(
        self, newest_b: Tensor, places_b: Tensor, longest: int, caches: Sequence[KeyValueCache]
    ) -> Tensor:
        """Return the hidden states (b, d) after each text's newest token.

        Args:
            places_b: each newest token's position, the number of tokens before it.
            longest: tokens of the longest text, known to the host.
            caches: hold what was computed before, and receive what is computed now.
        """
        self._check_length(longest)
        rooms = [cache.set_next_positions(places_b, longest) for cache in caches]  # the same in all layers
        visible_bp = torch.arange(rooms[0], device=places_b.device) <= places_b.unsqueeze(1)
        mask = additive_mask(visible_bp)[:, None, None, :]
        position_b1 = places_b.unsqueeze(1)
        return self._run(newest_b.unsqueeze(1), position_b1, longest, mask, caches).squeeze(1)

    @property
    def output_weight(self) -> Tensor:
        """The matrix (v, d) of the output projection."""
        # Looked up anew each time: under ZeRO-3 the look-up gathers the partitioned weight.
        return (self.output_embedding or self.embedding).weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Turns hidden states (…, d) into unnormalised log-probabilities (…, v)."""
        if torch.is_grad_enabled():  # product has none
            return F.linear(hidden, self.output_weight)
        return product(hidden, self.output_weight)

    def _run(
        self,
        ids_bt: Tensor,
        position: Tensor,
        longest: int,
        mask: Mask | None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """Return hidden states (b, t, d); positions (b, t) or (t,) are below `longest`."""
        x_btd, rotation = self._embed(ids_bt, position, longest)
        return self.run_layers(x_btd, mask, rotation, caches)

    def _embed(
        self, ids_bt: Tensor, position: Tensor, longest: int
    ) -> tuple[Tensor, Rotation | None]:
        """Returns the vectors (b, t, d) of tokens, and the rotation of those who see them."""
        x_btd: Tensor = self.embedding(ids_bt)
        rotation = None
        if isinstance(self.positions, LearnedPositions):
            x_btd = x_btd + self.positions(position)
        elif isinstance(self.positions, SinusoidalPositions):
            vectors = F.embedding(position, self.positions(0, longest))
            # The table may have stayed in fp32 where an engine casts only parameters.
            x_btd = x_btd + vectors.to(x_btd.dtype)
        else:
            rotation = self.positions(position, longest)
        return self.dropout(x_btd), rotation

    def _check_length(self, longest: int) -> None:
        if longest > self.context_length and isinstance(self.positions, LearnedPositions):
            raise ModelError(
                f"A text has {longest} tokens, but the network has learned {self.context_length} "
                "positions. Give it shorter texts, or train one with model.positions=rotary, "
                "which go on."
            )


def _positions_of(config: DecoderOnlyConfig, context_length: int) -> nn.Module:
    if config.positions == "learned":
        return LearnedPositions(context_length, config.width)
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.width)
    return RotaryPositions(config.head_width, config.rotary_base)


def _causal_part_mask(part_bt: Tensor) -> Tensor:
    """Hides from each token what comes after it and what is of another part, (b, 1, t, t)."""
    t = part_bt.shape[1]
    # Padding sees itself as if it were a part: every query must see at least one key.
    same_btt = part_bt.unsqueeze(2) == part_bt.unsqueeze(1)
    before_tt = torch.ones(t, t, dtype=torch.bool, device=part_bt.device).tril()
    return additive_mask(same_btt & before_tt).unsqueeze(1)
