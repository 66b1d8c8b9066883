"""The encoder-only Transformer: each token attends to all tokens of its part (Devlin et al. 2019).

    token ids ─▶ embedding + positions + segments ─▶ layers ─▶ hidden states ─▶ a head

A row of a batch holds consecutive parts of documents, and padding at its end:

    part_bt      0 0 0 0 1 1 2 2 2 -1   number of the part within its row, -1 at padding
    position_bt  0 1 2 3 0 1 0 1 2  0   position of each token; the task chooses where it restarts
    segment_bt   0 0 1 1 0 0 0 0 0  0   side of a sentence pair that a token belongs to

Attention stays within a part. If rows have several parts or padding, one mask for all layers
enforces this. With `AttentionBackend.VARLEN`, all parts are computed as one row without padding
(`model.blocks.packing`). A head uses the hidden states (`model.heads.masked_head`).

Stored weights depend on the names of the parameters. A network with an attribute `encoder` has:

    encoder.embedding.weight (v, d)    encoder.positions.weight (context, d)
    encoder.segments.weight (segments, d), unless there are none
    encoder.embedding_norm.{weight,bias} if norm is post; encoder.last_norm.… if it is pre
    encoder.layers.N.self_attention.query_key_value.{weight,bias} (3 d, d), queries first
    encoder.layers.N.self_attention.output.{weight,bias}
    encoder.layers.N.self_attention_norm.{weight,bias}
    encoder.layers.N.feed_forward.{inner,outer}.{weight,bias}
    encoder.layers.N.feed_forward_norm.{weight,bias}

Shape suffixes: b rows, t length, d model width, v vocabulary, n tokens without padding.
"""

from torch import Tensor, nn

from model.blocks.attention import Mask, additive_mask, refuse_packed_dropout
from model.blocks.dropout import Dropout
from model.blocks.embeddings import Embedding
from model.blocks.layers import LayerStack
from model.blocks.learned_positions import LearnedPositions
from model.blocks.norm import norm_of
from model.blocks.packing import PackedMask, Packing, packing_of_parts
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import AttentionBackend
from model.errors import ModelError


class EncoderOnly(LayerStack):
    """Embeddings and layers of an encoder, which networks with heads store as `encoder`.

    Attributes:
        width: width of the hidden states, d.
        context_length: maximum length of a part, and number of learned positions.
        vocabulary_size: v.
    """

    def __init__(
        self,
        config: EncoderOnlyConfig,
        vocabulary_size: int,
        context_length: int,
        attention_backend: AttentionBackend | None = None,
    ) -> None:
        """Build the encoder; the enclosing network initialises it together with its head.

        Args:
            attention_backend: backend, or None for the default, which was chosen by measurements.

        Raises:
            ModelError: the backend does not support the configured dropout of attention weights.
        """
        super().__init__()
        refuse_packed_dropout(attention_backend, config.attention_dropout)
        self.config = config
        self.width = config.width
        self.context_length = context_length
        self.vocabulary_size = vocabulary_size
        self.embedding = Embedding(vocabulary_size, self.width, scaled=False)
        self.positions = LearnedPositions(context_length, self.width)
        # The table of segment vectors has the form of a token embedding.
        self.segments = (
            Embedding(config.segments, self.width, scaled=False) if config.segments else None
        )
        self.embedding_norm = nn.Identity() if config.pre_norm else norm_of(config)
        self.dropout = Dropout(config.dropout)
        self.add_layers(config, config.layers, attention_backend)

    def forward(
        self,
        ids_bt: Tensor,
        segment_bt: Tensor,
        position_bt: Tensor,
        part_bt: Tensor,
        packing: Packing | None = None,
    ) -> Tensor:
        """Return the hidden states (b, t, d), which are meaningless at padding.

        Args:
            segment_bt: int64, below `model.segments`; ignored if the network has no segments.
            position_bt: int64, each token's position, below `context_length`.
            part_bt: int64, number of each token's part in its row: 0, 1, … in this order, and -1 at
                the padding at the end of the row.
            packing: the packing of the parts if the host knows it. Otherwise, it is computed here,
                and the host waits for the device.

        Raises:
            ModelError: a position is above the learned positions.
        """
        self._check_positions(position_bt)
        packing = packing or packing_of_parts(part_bt)
        if self.attention_backend is not AttentionBackend.VARLEN:
            mask = _part_mask(part_bt, packing)
            return self._run(ids_bt, segment_bt, position_bt, mask)
        hidden_1nd = self._run(
            packing.pack(ids_bt),
            packing.pack(segment_bt),
            packing.pack(position_bt),
            PackedMask(packing, packing),
        )
        b, t = ids_bt.shape
        hidden_kd = hidden_1nd.new_zeros(b * t, self.width)
        return hidden_kd.index_copy(0, packing.places_n, hidden_1nd[0]).unflatten(0, (b, t))

    def _run(
        self, ids_bt: Tensor, segment_bt: Tensor, position_bt: Tensor, mask: Mask | None
    ) -> Tensor:
        x_btd = self.embedding(ids_bt) + self.positions(position_bt)
        if self.segments is not None:
            x_btd = x_btd + self.segments(segment_bt)
        x_btd = self.dropout(self.embedding_norm(x_btd))
        return self.run_layers(x_btd, mask)

    def _check_positions(self, position_bt: Tensor) -> None:
        if position_bt.shape[1] <= self.context_length:
            return
        # Only rows longer than the context are checked, because the check makes the host wait for
        # the device.
        longest = int(position_bt.max()) + 1
        if longest > self.context_length:
            raise ModelError(
                f"A text has {longest} tokens, but the network has learned {self.context_length} "
                "positions. Use shorter texts, or train a network with a larger "
                "batching.context_length."
            )


def _part_mask(part_bt: Tensor, packing: Packing) -> Tensor | None:
    """Return a mask that hides padding and other parts, or None if every row is one part."""
    if packing.sentences == len(part_bt):
        if len(packing.places_n) == part_bt.numel():
            return None
        return additive_mask(part_bt == 0)[:, None, None, :]
    # Padding attends to itself as if it were a part, because every query must see at least one key.
    return additive_mask(part_bt.unsqueeze(2) == part_bt.unsqueeze(1)).unsqueeze(1)
