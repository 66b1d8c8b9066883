"""Conversion of a micro-batch of flat arrays to the padded tensors that a network reads.

The slot digest is computed here, from the tensors that the network receives. A digest of the plan
would not reveal that a rank trained on wrong arrays.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.pair import SOURCE, TARGET
from model.blocks.packing import Packing, moved, packings
from model.flops import Flops
from model.networks.transformer import Vocabulary


@dataclass(frozen=True)
class DeviceBatch:
    """Micro-batch in the form that a network reads.

    Attributes:
        inputs: the arguments of the network's forward before the loss.
        digest: blake2b-256 of the examples' numbers and of the network's inputs, without padding.
        padding: the number of padded positions.
        positions: the number of all positions.
        flops: floating-point operations of forward and backward; None if they are not counted.
        packings: the packing of each side, for a network whose forward has an argument `known`;
            empty for other networks.
    """

    inputs: tuple[torch.Tensor, ...]
    digest: bytes
    padding: int
    positions: int
    flops: Flops | None = None
    packings: tuple[Packing, ...] = ()

    def twice(self) -> Self:
        """Return a batch of all rows, followed by a copy of them, for `model.losses.r_drop`."""
        return replace(
            self,
            inputs=tuple(torch.cat([rows, rows]) for rows in self.inputs),
            packings=tuple(
                packing.twice(rows)
                for packing, rows in zip(self.packings, self.inputs, strict=False)
            ),
        )


@dataclass(frozen=True)
class PairBatch(DeviceBatch):
    """Micro-batch of b pairs, padded to s source tokens and t target tokens."""

    @property
    def source(self) -> torch.Tensor:
        """Token ids, int64 [b, s], with EOS at the end, then padding."""
        return self.inputs[0]

    @property
    def target_input(self) -> torch.Tensor:
        """BOS and the target's tokens, int64 [b, t]."""
        return self.inputs[1]


def device_batch(
    arrays: Sequence[np.ndarray],
    numbers: Iterable[np.ndarray],
    inputs: Sequence[np.ndarray],
    device: torch.device,
    packing: Packing | None = None,
) -> DeviceBatch:
    """Move the arrays that a network reads to a device.

    Args:
        arrays: the arguments of the network's forward; the first has the padded tokens.
        numbers: the numbers of the examples, and other numbers that the digest includes.
        inputs: the inputs without padding, for the digest; the first has the tokens.
        packing: the packing of the rows, on the host; None if the network takes no packing.
    """
    state = hashlib.blake2b(digest_size=32)
    for values in numbers:
        state.update(np.ascontiguousarray(values, dtype="<i8").data)
    for values in inputs:
        state.update(values.astype("<i4").data)
    positions = arrays[0].size
    return DeviceBatch(
        inputs=tuple(moved(torch.from_numpy(array), device) for array in arrays),
        digest=state.digest(),
        padding=positions - len(inputs[0]),
        positions=positions,
        packings=(packing.to(device),) if packing else (),
    )


def to_device(micro_batch: MicroBatch, vocabulary: Vocabulary, device: torch.device) -> PairBatch:
    """Pad a micro-batch of pairs, create the shifted decoder input, and move all to a device."""
    source = _padded(micro_batch.fields[SOURCE], vocabulary.pad_id)
    target_output = _padded(micro_batch.fields[TARGET], vocabulary.pad_id)
    target_input = np.empty_like(target_output)
    target_input[:, 0] = vocabulary.bos_id
    target_input[:, 1:] = target_output[:, :-1]
    target_input[target_input == vocabulary.eos_id] = vocabulary.pad_id
    tokens = sum(len(field.ids) for field in micro_batch.fields.values())
    positions = source.size + target_output.size
    host = [torch.from_numpy(a) for a in (source, target_input, target_output)]
    digest = _digest(micro_batch.pair_ids, host, vocabulary.pad_id)
    sides = packings(host[0] != vocabulary.pad_id, host[2] != vocabulary.pad_id)
    return PairBatch(
        inputs=tuple(moved(tensor, device) for tensor in host),
        digest=digest,
        padding=positions - tokens,
        positions=positions,
        packings=tuple(side.to(device) for side in sides),
    )


def _padded(field: FieldArrays, pad_id: int) -> np.ndarray:
    """Return the flat ids of one field as int64 [rows, longest], padded at the end."""
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
