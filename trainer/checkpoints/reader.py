"""Reading a checkpoint's tensors by parameter name and range, however they were cut."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from trainer.checkpoints.format import Checkpoint
from trainer.errors import CheckpointError
from trainer.zero.fragments import EMA, MASTER


class _Piece(NamedTuple):
    start: int
    stop: int
    file: Path
    key: str


class CheckpointReader:
    """Random access to the state in a checkpoint; only the ranges asked for are read."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._files = {}
        self._pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)
        for path in checkpoint.file_paths():
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}") from error
            self._files[path] = file
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                kind, parameter, start = key.split(":")
                numel = file.get_slice(key).get_shape()[0]
                piece = _Piece(int(start), int(start) + numel, path, key)
                self._pieces[kind, parameter].append(piece)
        for pieces in self._pieces.values():
            pieces.sort()

    def read(self, kind: str, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Elements `[start, stop)` of a flattened parameter's state, fp32 on the host.

        Raises:
            CheckpointError: the checkpoint does not hold all of these elements.
        """
        result = torch.empty(stop - start, dtype=torch.float32)
        position = start
        for piece in self._pieces[kind, parameter]:
            begin, end = max(piece.start, position), min(piece.stop, stop)
            if begin != position or begin >= end:
                continue
            part = self._files[piece.file].get_slice(piece.key)
            result[begin - start : end - start] = part[begin - piece.start : end - piece.start]
            position = end
        if position != stop:
            raise CheckpointError(
                f"{self.checkpoint.path} holds {kind} of {parameter} up to element {position}, "
                f"not the {stop} that were asked for"
            )
        return result

    @property
    def names(self) -> set[tuple[str, str]]:
        """The kind and parameter of everything in the state."""
        return set(self._pieces)

    def whole(self, kind: str, parameter: str) -> torch.Tensor:
        """All of one kind of a parameter's state, flat."""
        return self.read(kind, parameter, 0, self._numel(parameter))

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole tensors by parameter name, for inference."""
        return {
            name: self.weight(name).view(shape)
            for name, shape in self.checkpoint.header.parameters.items()
        }

    def weight(self, parameter: str) -> torch.Tensor:
        """A whole parameter, flat, as `read_weight` gives it."""
        return self.read_weight(parameter, 0, self._numel(parameter))

    def read_weight(self, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Elements of a flattened parameter, or of its moving average if the run keeps one."""
        kind = EMA if (EMA, parameter) in self._pieces else MASTER
        return self.read(kind, parameter, start, stop)

    def _numel(self, parameter: str) -> int:
        return torch.Size(self.checkpoint.header.parameters[parameter]).numel()
