"""The encoder–decoder Transformer (Vaswani et al. 2017, §3).

    source ids ─▶ embedding × √d + positions ─▶ encoder ─▶ memory
    target ids ─▶ embedding × √d + positions ─▶ decoder ◀─ memory ─▶ hidden ─▶ logits ─▶ loss

If `model.positions` is rotary, nothing is added to the embeddings; queries and keys of
self-attention are rotated by their positions instead.

Ids are (b, s) and (b, t), padded at the *end* of each row; padding never changes a result. A source
ends with EOS. A target input starts with BOS, its output ends with EOS. If `model.decoder_start` is
pad, the padding token takes the place of BOS.

With `AttentionBackend.VARLEN`, the loss is computed from packed sentences (`model.blocks.packing`),
so that nothing is computed for padding. Decoding and traces use padded batches.

Shape suffixes: b batch, s source length, t target length, d model width, v target vocabulary, n
target tokens without padding, k hypotheses of a sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.blocks.attention import KeyValue, additive_mask, refuse_packed_dropout
from model.blocks.cache import KeyValueCache
from model.blocks.dropout import Dropout
from model.blocks.embeddings import Embedding
from model.blocks.layers import Decoder, Encoder
from model.blocks.linear import affine, aligned
from model.blocks.packing import PackedMask, Packing, packings
from model.blocks.positions import SinusoidalPositions
from model.blocks.rotary import RotaryPositions, Rotation
from model.config.transformer import AttentionBackend, ModelConfig
from model.errors import ModelError
from model.losses.loss import Loss, LossSums, with_bias_as_weights
from model.networks.initialisation import initialise_glorot


@dataclass(frozen=True)
class Vocabulary:
    """Sizes of the two vocabularies, and the special ids, which both share.

    Attributes:
        bos_id: first token of a target input; equal to `pad_id` if target inputs begin with
            padding.
    """

    source_size: int
    target_size: int
    pad_id: int
    bos_id: int
    eos_id: int

    def __post_init__(self) -> None:
        special = {"pad_id": self.pad_id, "bos_id": self.bos_id, "eos_id": self.eos_id}
        smaller = min(self.source_size, self.target_size)
        if self.eos_id in (self.pad_id, self.bos_id) or not all(
            0 <= number < smaller for number in special.values()
        ):
            raise ModelError(
                f"The special tokens are {special}, but they must be ids below {smaller}, the size "
                "of the smaller vocabulary, and EOS must differ from padding and BOS. Train or "
                "choose a tokenizer that has padding, BOS and EOS."
            )

    @property
    def starts_with_padding(self) -> bool:
        """True if a target input begins with padding."""
        return self.bos_id == self.pad_id


class Transformer(nn.Module):
    """The encoder-decoder network. `forward` uses all parameters, as ZeRO-3 requires."""

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Build and initialise the network; seed torch first.

        Args:
            attention_backend: backend, or None for the default, which was chosen by measurements.
        """
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.attention_backend = attention_backend
        refuse_packed_dropout(
            attention_backend, config.attention_dropout, without=", as in the paper"
        )
        if (config.decoder_start == "pad") != vocabulary.starts_with_padding:
            raise ModelError(
                f"model.decoder_start is {config.decoder_start}, but the vocabulary's padding id "
                f"is {vocabulary.pad_id} and its BOS id is {vocabulary.bos_id}: the ids must be "
                "equal if decoder_start is pad, and different if it is bos. Set "
                "model.decoder_start to fit the tokenizer."
            )
        shared = config.share_embeddings
        if shared == "all" and vocabulary.source_size != vocabulary.target_size:
            raise ModelError(
                "model.share_embeddings is all, but the vocabularies differ: "
                f"{vocabulary.source_size} source and {vocabulary.target_size} target tokens. "
                "Set tokenizer.joint=true, or model.share_embeddings=decoder."
            )
        width = config.width
        self.target_embedding = Embedding(vocabulary.target_size, width)
        self.source_embedding = (
            Embedding(vocabulary.source_size, width) if shared != "all" else None
        )
        self.output_embedding = (
            Embedding(vocabulary.target_size, width) if shared == "none" else None
        )
        self.output_bias = (
            nn.Parameter(torch.zeros(vocabulary.target_size)) if config.output_bias else None
        )
        rotates = config.positions == "rotary"
        self.positions = None if rotates else SinusoidalPositions(config.width)
        self.rotary = RotaryPositions(config.head_width, config.rotary_base) if rotates else None
        self.dropout = Dropout(config.dropout)
        self.encoder = Encoder(config, attention_backend)
        self.decoder = Decoder(config, attention_backend)
        initialise_glorot(self)

    def forward(
        self,
        source_bs: Tensor,
        target_input_bt: Tensor,
        target_output_bt: Tensor,
        loss: Loss,
        known: Sequence[Packing] = (),
    ) -> LossSums:
        """Return the loss's sums over the target tokens, padding excluded.

        Args:
            known: the packings of source and target if the host knows them. Otherwise, they are
                computed here, and the host waits for the device.
        """
        # The input and the output of a target have the same number of real tokens, but only the
        # output shows this number. In the input, EOS or PAD may follow the last real token.
        sides = known or packings(self.is_real(source_bs), self.is_real(target_output_bt))
        packed = self.attention_backend is AttentionBackend.VARLEN
        hidden = self._hidden_packed if packed else self._hidden_padded
        hidden_nd = hidden(source_bs, target_input_bt, *sides)
        target_n = sides[1].pack(target_output_bt)[0]
        weight_vd = self.output_weight
        if self.output_bias is not None:
            hidden_nd, weight_vd = with_bias_as_weights(hidden_nd, weight_vd, self.output_bias)
        return loss(hidden_nd, weight_vd, target_n)

    def _hidden_padded(
        self, source_bs: Tensor, target_input_bt: Tensor, source: Packing, target: Packing
    ) -> Tensor:
        """Return the hidden states (n, d) of the real target tokens."""
        memory_bsd = self.encode(source_bs)
        hidden_btd = self.decode(target_input_bt, memory_bsd, source_bs)
        # Only real tokens are projected to logits, because this is the largest product of a small
        # model.
        return hidden_btd.flatten(0, 1).index_select(0, target.places_n)

    def _hidden_packed(
        self, source_bs: Tensor, target_input_bt: Tensor, source: Packing, target: Packing
    ) -> Tensor:
        """Return the result of `_hidden_padded`, in the same order, without computing padding."""
        x_1sd = self.embed_packed(source_bs, self.source_embedding or self.target_embedding, source)
        memory_1sd = self.encoder(x_1sd, PackedMask(source, source), self._rotation_packed(source))
        x_1nd = self.embed_packed(target_input_bt, self.target_embedding, target)
        hidden_1nd = self.decoder(
            x_1nd,
            self.decoder.project_memory(memory_1sd),
            PackedMask(target, source),
            PackedMask(target, target),
            rotation=self._rotation_packed(target),
        )
        return hidden_1nd[0]

    def checkpoint_activations(self, on: bool) -> None:
        """See `LayerStack.checkpoint_activations`."""
        self.encoder.checkpoint_activations(on)
        self.decoder.checkpoint_activations(on)

    def encode(self, source_bs: Tensor) -> Tensor:
        """Return the memory (b, s, d)."""
        x_bsd = self.embed(source_bs, self.source_embedding or self.target_embedding)
        memory_bsd: Tensor = self.encoder(x_bsd, self.source_mask(source_bs), self._rotation(x_bsd))
        return memory_bsd

    def decode(self, target_input_bt: Tensor, memory_bsd: Tensor, source_bs: Tensor) -> Tensor:
        """Return the hidden states (b, t, d) that predict each next token."""
        x_btd = self.embed(target_input_bt, self.target_embedding)
        memories = self.decoder.project_memory(memory_bsd)
        hidden_btd: Tensor = self.decoder(
            x_btd, memories, self.source_mask(source_bs), rotation=self._rotation(x_btd)
        )
        return hidden_btd

    def decode_step(
        self,
        newest_bk: Tensor,
        memories: Sequence[KeyValue],
        memory_mask: Tensor,
        ancestry_mask: Tensor,
        caches: Sequence[KeyValueCache],
    ) -> Tensor:
        """Return the hidden states (b, k, d) after each hypothesis' newest token.

        The step extends `decode` by one position; `caches` contain the keys and values of earlier
        positions.
        """
        position = caches[0].length
        x_bkd = self.embed(newest_bk, self.target_embedding, position)
        rotation = self._rotation(x_bkd, position)
        hidden_bkd: Tensor = self.decoder(
            x_bkd, memories, memory_mask, ancestry_mask, caches, rotation
        )
        return hidden_bkd

    def embed(self, ids: Tensor, embedding: Embedding, position: int | None = None) -> Tensor:
        """Embed ids (b, t) at positions 0…t-1, or all of them at `position` if it is given."""
        vectors = embedding(ids)
        table = None
        if self.positions is not None:
            table = self.positions(*_bounds(vectors, position))
        return self._add_positions(vectors, table)

    def embed_packed(self, ids_bt: Tensor, embedding: Embedding, packing: Packing) -> Tensor:
        """Embed padded ids as one packed row (1, n, d); positions restart in each sentence."""
        table = None
        if self.positions is not None:
            table = self.positions(0, packing.max_seqlen).index_select(0, packing.positions_n)
        return self._add_positions(embedding(packing.pack(ids_bt)), table)

    def _add_positions(self, vectors: Tensor, table: Tensor | None) -> Tensor:
        if table is not None:
            # The table stays in fp32 if an engine casts only parameters.
            vectors = vectors + table.to(vectors.dtype)
        x: Tensor = self.dropout(vectors)
        return x

    def _rotation(self, x_btd: Tensor, position: int | None = None) -> Rotation | None:
        """Return the rotation of positions 0…t-1 or, in decoding, of the given position."""
        if self.rotary is None:
            return None
        start, stop = _bounds(x_btd, position)
        rotation: Rotation = self.rotary(torch.arange(start, stop, device=x_btd.device), stop)
        return rotation

    def _rotation_packed(self, packing: Packing) -> Rotation | None:
        """Return the rotation of each packed token by its position in its sentence."""
        if self.rotary is None:
            return None
        rotation: Rotation = self.rotary(packing.positions_n, packing.max_seqlen)
        return rotation

    @property
    def width(self) -> int:
        """Width of every layer's output."""
        return self.config.width

    @property
    def output_weight(self) -> Tensor:
        """Matrix (v, d) of the output projection."""
        # A property and not an attribute: under ZeRO-3, each access gathers the partitioned weight.
        return aligned((self.output_embedding or self.target_embedding).weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """Convert hidden states (…, d) into unnormalised log-probabilities (…, v)."""
        return affine(hidden, self.output_weight, self.output_bias)

    def is_real(self, ids_bt: Tensor) -> Tensor:
        """Return a mask (b, t), true at tokens, false at padding."""
        return ids_bt != self.vocabulary.pad_id

    def source_mask(self, source_bs: Tensor) -> Tensor:
        """Return a mask (b, 1, 1, s) that hides padding from attention."""
        return additive_mask(self.is_real(source_bs))[:, None, None, :]


def _bounds(x_btd: Tensor, position: int | None) -> tuple[int, int]:
    """Return start and stop (exclusive) of positions 0…t-1, or of the given position."""
    return (0, x_btd.shape[1]) if position is None else (position, position + 1)
