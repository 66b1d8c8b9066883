"""From a micro-batch of flat arrays to the padded tensors that the model is fed.

The slot digest is computed here, from the very tensors that go to forward: a digest of the plan
would be equal even when a rank trained on wrong arrays.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from model.transformer import Vocabulary


@dataclass(frozen=True)
class DeviceBatch:
    """One micro-batch in the form that the model takes.

    Attributes:
        source: token ids, int64 [b, s], EOS at the end, then padding.
        target_input: BOS and the target's tokens, int64 [b, t].
        target_output: the target's tokens and EOS, int64 [b, t].
        digest: blake2b-256 of the pair ids and of the unpadded token ids fed to the model.
        padding: the number of padded positions of both sides.
        positions: the number of all positions of both sides.
    """

    source: torch.Tensor
    target_input: torch.Tensor
    target_output: torch.Tensor
    digest: bytes
    padding: int
    positions: int


def to_device(micro_batch: MicroBatch, vocabulary: Vocabulary, device: torch.device) -> DeviceBatch:
    """Pad, shift and move a micro-batch with the fields `src` and `tgt`."""
    source = _padded(micro_batch.fields["src"], vocabulary.pad_id)
    target_output = _padded(micro_batch.fields["tgt"], vocabulary.pad_id)
    target_input = np.empty_like(target_output)
    target_input[:, 0] = vocabulary.bos_id
    target_input[:, 1:] = target_output[:, :-1]
    target_input[target_input == vocabulary.eos_id] = vocabulary.pad_id
    tokens = sum(len(field.ids) for field in micro_batch.fields.values())
    positions = source.size + target_output.size
    host = [torch.from_numpy(a) for a in (source, target_input, target_output)]
    digest = _digest(micro_batch.pair_ids, host, vocabulary.pad_id)
    on_device = [tensor.to(device, non_blocking=True) for tensor in host]
    return DeviceBatch(
        source=on_device[0],
        target_input=on_device[1],
        target_output=on_device[2],
        digest=digest,
        padding=positions - tokens,
        positions=positions,
    )


def dummy_batch(vocabulary: Vocabulary, device: torch.device) -> DeviceBatch:
    """A constant batch of one pair of one token, for ranks that have a slot less than others."""
    ids = np.array([vocabulary.eos_id], dtype=np.int32)
    field = FieldArrays(ids=ids, lengths=np.array([1], dtype=np.int32))
    micro_batch = MicroBatch(
        pair_ids=np.array([-1], dtype=np.int64), fields={"src": field, "tgt": field}
    )
    return to_device(micro_batch, vocabulary, device)


def _padded(field: FieldArrays, pad_id: int) -> np.ndarray:
    """The flat ids of one field as int64 [rows, longest], padded at the end."""
    width = int(field.lengths.max())
    padded = np.full((len(field.lengths), width), pad_id, dtype=np.int64)
    padded[np.arange(width) < field.lengths[:, None]] = field.ids
    return padded


def _digest(pair_ids: np.ndarray, fed: list[torch.Tensor], pad_id: int) -> bytes:
    state = hashlib.blake2b(digest_size=32)
    state.update(np.ascontiguousarray(pair_ids, dtype="<i8").data)
    for tensor in fed:
        array = tensor.numpy()
        real = array != pad_id
        state.update(real.sum(axis=1).astype("<i8").data)
        state.update(array[real].astype("<i4").data)
    return state.digest()
