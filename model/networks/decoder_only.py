"""The decoder-only Transformer, a language model (Radford et al. 2018, 2019; Touvron et al. 2023).

    token ids ─▶ embedding (+ positions) ─▶ layers ─▶ last norm ─▶ hidden ─▶ logits ─▶ loss

A row of a batch holds consecutive parts of documents, and padding at its end. Positions and
attention restart at each part, so the result for a part does not depend on the rest of its row:

    part_bt    0 0 0 0 1 1 2 2 2 -1      number of the part within its row, -1 at padding
    positions  0 1 2 3 0 1 0 1 2  0

Attention is causal. If a row has several parts, one mask for all layers separates them. With
`AttentionBackend.VARLEN`, the loss is computed from one row of all parts (`model.blocks.packing`),
without padding and without a mask. `prefill` and `step` continue texts
(`model.generation.sampling`).

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
from model.blocks.linear import affine, aligned
from model.blocks.packing import PackedMask, Packing, packing_of_parts
from model.blocks.positions import SinusoidalPositions
from model.blocks.rotary import RotaryPositions, Rotation
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.losses.loss import Loss, LossSums
from model.networks.initialisation import initialise_normal


class DecoderOnly(LayerStack):
    """The decoder-only network. `forward` uses all parameters, as ZeRO-3 requires.

    Attributes:
        width: width of the hidden states, d.
        context_length: maximum length of a part in training. Learned positions end at this length;
            other kinds of positions have no limit.
        vocabulary_size: v.
        pad_id: id at padding, whose embedding affects no result.
    """

    mask_forms = ("none", "pairs")

    def __init__(
        self,
        config: DecoderOnlyConfig,
        vocabulary_size: int,
        pad_id: int,
        context_length: int,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Build and initialise the network; seed torch first.

        Args:
            attention_backend: backend, or None for the default, which was chosen by measurements.

        Raises:
            ModelError: the padding id is not in the vocabulary, or the backend does not support the
                configured dropout of attention weights.
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
        # As in Vaswani et al. 2017, sines and cosines are added to vectors that are scaled by
        # √width.
        scaled = config.positions == "sinusoidal"
        self.embedding = Embedding(vocabulary_size, self.width, scaled)
        self.output_embedding = (
            None if config.tie_embeddings else Embedding(vocabulary_size, self.width, scaled=False)
        )
        self.positions = _positions_of(config, context_length)
        self.dropout = Dropout(config.dropout)
        self.add_layers(config, config.layers, attention_backend, causal=True)
        initialise_normal(self, residual_sums=2 * config.layers)

    def forward(
        self,
        input_bt: Tensor,
        target_bt: Tensor,
        part_bt: Tensor,
        loss: Loss,
        known: Sequence[Packing] = (),
    ) -> LossSums:
        """Return the loss sums over the targets, padding excluded.

        Args:
            target_bt: the token that follows each token of the input.
            part_bt: int64, number of each token's part in its row: 0, 1, … in this order, and -1 at
                the padding at the end of the row.
            loss: called with hidden states (n, d), the output matrix (v, d) and targets (n,), in
                the order of the rows.
            known: the packing of the parts if the host knows it. Otherwise, it is computed here,
                and the host waits for the device.

        Raises:
            ModelError: positions are learned, and a part is longer than `context_length`.
        """
        (packing,) = known or [packing_of_parts(part_bt)]
        packed = self.attention_backend is AttentionBackend.VARLEN
        hidden = self._hidden_packed if packed else self._hidden_padded
        hidden_nd = hidden(input_bt, part_bt, packing)
        return loss(hidden_nd, self.output_weight, packing.pack(target_bt)[0])

    def _hidden_padded(self, input_bt: Tensor, part_bt: Tensor, packing: Packing) -> Tensor:
        """Return the hidden states (n, d) of the real tokens."""
        hidden_btd = self.hidden(input_bt, part_bt, packing)
        # Only real tokens are projected to logits, because this is the largest product of a small
        # model.
        return hidden_btd.flatten(0, 1).index_select(0, packing.places_n)

    def _hidden_packed(self, input_bt: Tensor, part_bt: Tensor, packing: Packing) -> Tensor:
        """Return the result of `_hidden_padded`, in the same order, without computing padding."""
        self._check_length(packing.max_seqlen)
        hidden_1nd = self._run(
            packing.pack(input_bt),
            packing.positions_n,
            packing.max_seqlen,
            PackedMask(packing, packing),
        )
        return hidden_1nd[0]

    def hidden(self, input_bt: Tensor, part_bt: Tensor, packing: Packing | None = None) -> Tensor:
        """Return the hidden states (b, t, d) that predict each next token."""
        packing = packing or packing_of_parts(part_bt)
        b, t = part_bt.shape
        if packing.sentences > b:
            position, mask = packing.positions(part_bt), _causal_part_mask(part_bt)
        else:
            position, mask = torch.arange(t, device=part_bt.device), None
        if t > self.context_length and isinstance(self.positions, LearnedPositions):
            self._check_length(packing.max_seqlen)
            position = position.clamp(max=self.context_length - 1)  # changes only padding
        return self._run(input_bt, position, t, mask)

    def empty_caches(self) -> list[KeyValueCache]:
        """Return an empty cache for each layer, for `prefill` to fill."""
        return [KeyValueCache() for _ in self.layers]

    def prefill(
        self, prompt_bt: Tensor, lengths_b: Tensor, caches: Sequence[KeyValueCache]
    ) -> Tensor:
        """Return the hidden states (b, d) at the prompts' last tokens; fill the caches in one pass.

        Args:
            prompt_bt: prompts, padded at the end; `lengths_b` counts the real tokens.
            caches: empty caches, one per layer.
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
        """Return the hidden states (b, d) at each text's newest token.

        Args:
            places_b: position of each newest token, which is the number of tokens before it.
            longest: number of tokens of the longest text, an int on the host.
            caches: keys and values of earlier tokens; the newest tokens' keys and values are added.
        """
        self._check_length(longest)
        # Capacities, which are the same in all layers.
        rooms = [cache.set_next_positions(places_b, longest) for cache in caches]
        visible_bp = torch.arange(rooms[0], device=places_b.device) <= places_b.unsqueeze(1)
        mask = additive_mask(visible_bp)[:, None, None, :]
        position_b1 = places_b.unsqueeze(1)
        return self._run(newest_b.unsqueeze(1), position_b1, longest, mask, caches).squeeze(1)

    @property
    def output_weight(self) -> Tensor:
        """Matrix (v, d) of the output projection."""
        # A property and not an attribute: under ZeRO-3, each access gathers the partitioned weight.
        return aligned((self.output_embedding or self.embedding).weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """Convert hidden states (…, d) into unnormalised log-probabilities (…, v)."""
        return affine(hidden, self.output_weight)

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
        """Return the token vectors (b, t, d), and the rotation if positions are rotary, or None."""
        x_btd: Tensor = self.embedding(ids_bt)
        rotation = None
        if isinstance(self.positions, LearnedPositions):
            x_btd = x_btd + self.positions(position)
        elif isinstance(self.positions, SinusoidalPositions):
            vectors = F.embedding(position, self.positions(0, longest))
            # The table stays in fp32 if an engine casts only parameters.
            x_btd = x_btd + vectors.to(x_btd.dtype)
        else:
            rotation = self.positions(position, longest)
        return self.dropout(x_btd), rotation

    def _check_length(self, longest: int) -> None:
        if longest > self.context_length and isinstance(self.positions, LearnedPositions):
            raise ModelError(
                f"A text has {longest} tokens, but the network has learned {self.context_length} "
                "positions. Give it shorter texts, or train one with model.positions=rotary, "
                "which has no such limit."
            )


def _positions_of(config: DecoderOnlyConfig, context_length: int) -> nn.Module:
    if config.positions == "learned":
        return LearnedPositions(context_length, config.width)
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.width)
    return RotaryPositions(config.head_width, config.rotary_base)


def _causal_part_mask(part_bt: Tensor) -> Tensor:
    """Return a mask (b, 1, t, t) that hides later tokens and other parts from each token."""
    t = part_bt.shape[1]
    # Padding attends to itself as if it were a part, because every query must see at least one key.
    same_btt = part_bt.unsqueeze(2) == part_bt.unsqueeze(1)
    before_tt = torch.ones(t, t, dtype=torch.bool, device=part_bt.device).tril()
    return additive_mask(same_btt & before_tt).unsqueeze(1)
