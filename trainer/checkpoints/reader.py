"""Reading a checkpoint's tensors by parameter name and range, however they were cut.

headers of all files ──compared with checkpoint.json──▶ fragments ──read, NaN refused──▶ tensors
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from trainer.checkpoints.format import Checkpoint
from trainer.checkpoints.state_file import read_state_header
from trainer.errors import CheckpointError
from trainer.zero.fragment import EMA, MASTER

ELEMENTS_AT_ONCE = 16_000_000


class _Piece(NamedTuple):
    start: int
    stop: int
    file: Path
    key: str


class CheckpointReader:
    """Random access to the state in a checkpoint; only the ranges asked for are read.

    Raises:
        CheckpointError: its files hold anything but whole parameters of checkpoint.json, in fp32.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._files = {}
        self._pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)
        for path in checkpoint.file_paths():
            for kind, parameter, start, stop, key in read_state_header(path):
                self._pieces[kind, parameter].append(_Piece(start, stop, path, key))
            try:
                self._files[path] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}") from error
        for pieces in self._pieces.values():
            pieces.sort()
        self._require_whole_parameters()

    def _require_whole_parameters(self) -> None:
        """Require every kind of state of every parameter, each element once."""
        shapes = self.checkpoint.header.parameters
        for (kind, parameter), pieces in self._pieces.items():
            if parameter not in shapes:
                raise CheckpointError(
                    f"{pieces[0].file} holds {pieces[0].key[:200]}, and checkpoint.json knows no "
                    "such parameter: it is damaged"
                )
            position = 0
            for piece in pieces:
                if piece.start != position:
                    raise CheckpointError(
                        f"{piece.file} holds {piece.key[:200]}, where element {position} of {kind} "
                        f"of {parameter} was expected: it is damaged"
                    )
                position = piece.stop
            if position != prod(shapes[parameter]):
                raise CheckpointError(
                    f"{pieces[-1].file} ends {kind} of {parameter} at element {position}, which "
                    f"checkpoint.json says has the shape {shapes[parameter]}: it is damaged"
                )
        frozen = frozenset(self.checkpoint.header.frozen)
        for kind in {MASTER, *(kind for kind, _ in self._pieces)}:
            for parameter, shape in shapes.items():
                expected = kind == MASTER or parameter not in frozen
                if expected and prod(shape) > 0 and (kind, parameter) not in self._pieces:
                    raise CheckpointError(
                        f"{self.checkpoint.path} lacks {kind} of {parameter}, of the shape "
                        f"{shape}: it is damaged"
                    )

    def read(self, kind: str, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Elements `[start, stop)` of a flattened parameter's state, fp32 on the host.

        Raises:
            CheckpointError: the checkpoint does not hold all of these elements, or NaN.
        """
        result = torch.empty(stop - start, dtype=torch.float32)
        position = start
        for piece in self._pieces.get((kind, parameter), ()):
            begin, end = max(piece.start, position), min(piece.stop, stop)
            if begin != position or begin >= end:
                continue
            result[begin - start : end - start] = self._part(piece, kind, begin, end)
            position = end
        if position != stop:
            raise CheckpointError(
                f"{self.checkpoint.path} holds {kind} of {parameter} up to element {position}, "
                f"not the {stop} that were asked for"
            )
        return result

    def _part(self, piece: _Piece, kind: str, begin: int, end: int) -> torch.Tensor:
        part: torch.Tensor = self._files[piece.file].get_slice(piece.key)[
            begin - piece.start : end - piece.start
        ]
        # A moment may be infinite: the square of a large gradient is.
        wrong = ~torch.isfinite(part) if kind in (MASTER, EMA) else torch.isnan(part)
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise CheckpointError(
                f"{piece.file} has {part[place].item()} as element {begin + place} of {kind} of "
                f"{piece.key.split(':')[1]}, expected a number: no run can go on from it"
            )
        return part

    def check_numbers(self) -> None:
        """Read everything, a part at a time.

        Raises:
            CheckpointError: NaN stands somewhere, or an infinite weight.
        """
        for (kind, _), pieces in self._pieces.items():
            for piece in pieces:
                for begin in range(piece.start, piece.stop, ELEMENTS_AT_ONCE):
                    self._part(piece, kind, begin, min(begin + ELEMENTS_AT_ONCE, piece.stop))

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
        return prod(self.checkpoint.header.parameters[parameter])


def require_same_shapes(
    checkpoint: Checkpoint, model: Mapping[str, Sequence[int]], within: str = ""
) -> None:
    """Require the parameters of the recipe's model.

    Args:
        model: the shapes of its parameters by name.
        within: what the names begin with that are compared.

    Raises:
        CheckpointError: the checkpoint has others.
    """
    theirs = checkpoint.header.parameters
    ours = {name: list(shape) for name, shape in model.items()}
    for name in sorted(name for name in ours.keys() | theirs.keys() if name.startswith(within)):
        if ours.get(name) != theirs.get(name):
            raise CheckpointError(
                f"{checkpoint.path} has parameter {name[:200]} of shape {theirs.get(name)}, the "
                f"recipe's model has {ours.get(name)}: it is another model's checkpoint"
            )
