"""Reader of a checkpoint's tensors by parameter name and range, for any partitioning.

headers of all files ──compared with checkpoint.json──▶ fragments ──read, NaN refused──▶ tensors
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch

from run_store.checkpoints.checkpoint import SavedState
from run_store.checkpoints.fragment import EMA, MASTER
from run_store.checkpoints.state_file import StateFile
from run_store.errors import CheckpointError

ELEMENTS_AT_ONCE = 1_000_000


class _Piece(NamedTuple):
    start: int
    stop: int
    file: StateFile
    key: str


class CheckpointReader:
    """Random access to the state in a checkpoint; reads only the requested ranges.

    Raises:
        CheckpointError: the files do not hold each element of the parameters in checkpoint.json
            exactly once, in fp32, or they hold other parameters.
    """

    def __init__(self, checkpoint: SavedState) -> None:
        self.checkpoint = checkpoint
        self._pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)
        for file in checkpoint.open_files():
            for kind, parameter, start, stop, key in file.fragments():
                self._pieces[kind, parameter].append(_Piece(start, stop, file, key))
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: (piece.start, piece.stop))
        self._require_whole_parameters()

    def _require_whole_parameters(self) -> None:
        """Require every element of every parameter exactly once in each kind of state.

        Frozen parameters need only weights.
        """
        shapes = self.checkpoint.header.parameters
        for (kind, parameter), pieces in self._pieces.items():
            if parameter not in shapes:
                raise CheckpointError(
                    f"{pieces[0].file.label} holds {pieces[0].key[:200]}, but checkpoint.json has "
                    "no such parameter: the file is damaged"
                )
            position = 0
            for piece in pieces:
                if piece.start != position:
                    raise CheckpointError(
                        f"{piece.file.label} holds {piece.key[:200]}, but element {position} of "
                        f"{kind} of {parameter} was expected: the file is damaged"
                    )
                position = piece.stop
            if position != prod(shapes[parameter]):
                raise CheckpointError(
                    f"{pieces[-1].file.label} ends {kind} of {parameter} at element {position}, "
                    f"but in checkpoint.json the shape is {shapes[parameter]}: the file is damaged"
                )
        frozen = frozenset(self.checkpoint.header.frozen)
        for kind in {MASTER, *(kind for kind, _ in self._pieces)}:
            for parameter, shape in shapes.items():
                expected = kind == MASTER or parameter not in frozen
                if expected and prod(shape) > 0 and (kind, parameter) not in self._pieces:
                    raise CheckpointError(
                        f"{self.checkpoint.label} lacks {kind} of {parameter}, which has the shape "
                        f"{shape}: the checkpoint is damaged"
                    )

    def read(self, kind: str, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Return elements `[start, stop)` of a flattened parameter's state, in fp32 on the host.

        Args:
            kind: the kind of state: master weights, a moment, or the moving average.
            parameter: the parameter's name.
            start: the first element.
            stop: the end of the range, exclusive.

        Returns:
            A tensor of shape [stop - start].

        Raises:
            CheckpointError: the checkpoint lacks some of these elements, or one of them is NaN. An
                infinite element is an error only in the weights and their moving average.
        """
        result = torch.empty(stop - start, dtype=torch.float32)
        self.read_into(kind, parameter, start, result)
        return result

    def read_into(self, kind: str, parameter: str, start: int, target: torch.Tensor) -> None:
        """Fill a flat fp32 tensor on any device with the elements that `read` would return.

        On the host, the elements are read directly into the target.
        """
        host = target if target.is_cpu and target.is_contiguous() else torch.empty(target.shape)
        position, stop = start, start + target.numel()
        for piece in self._pieces.get((kind, parameter), ()):
            begin, end = max(piece.start, position), min(piece.stop, stop)
            if begin != position or begin >= end:
                continue
            self._read_part(piece, kind, begin, host[begin - start : end - start])
            position = end
        if position != stop:
            raise CheckpointError(
                f"{self.checkpoint.label} holds {kind} of {parameter} only up to element "
                f"{position}, but elements up to {stop} were requested"
            )
        if host is not target:
            target.copy_(host)

    def _read_part(self, piece: _Piece, kind: str, begin: int, target: torch.Tensor) -> None:
        """Read and check elements from `begin` on, in chunks that stay in the processor's cache."""
        for chunk in target.split(ELEMENTS_AT_ONCE):
            piece.file.read_into(piece.key, begin - piece.start, chunk)
            self._check(piece, kind, begin, chunk)
            begin += len(chunk)

    def _check(self, piece: _Piece, kind: str, begin: int, part: torch.Tensor) -> None:
        if part.sum().isfinite():  # a finite sum has only finite elements
            return
        # A moment may be infinite, because the square of a large gradient may overflow.
        is_valid = part.isfinite() if kind in (MASTER, EMA) else ~part.isnan()
        if is_valid.all():
            return
        place = int((~is_valid).nonzero()[0])
        raise CheckpointError(
            f"{piece.file.label} has {part[place].item()} as element {begin + place} of {kind} "
            f"of {piece.key.split(':')[1]}, expected a number: no run can resume from it"
        )

    def check_numbers(self) -> None:
        """Read all state in chunks, to check that its values are valid.

        Raises:
            CheckpointError: the state has a NaN, or an infinite weight or moving average.
        """
        buffer = torch.empty(ELEMENTS_AT_ONCE)
        for (kind, _), pieces in self._pieces.items():
            for piece in pieces:
                for begin in range(piece.start, piece.stop, ELEMENTS_AT_ONCE):
                    count = min(ELEMENTS_AT_ONCE, piece.stop - begin)
                    self._read_part(piece, kind, begin, buffer[:count])

    @property
    def names(self) -> set[tuple[str, str]]:
        """Kind and parameter name of each tensor in the state."""
        return set(self._pieces)

    def whole(self, kind: str, parameter: str) -> torch.Tensor:
        """Return all elements of one kind of a parameter's state, flattened."""
        return self.read(kind, parameter, 0, self._numel(parameter))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of all parameters for inference, by name and in their shapes."""
        return {
            name: self.weight(name).view(shape)
            for name, shape in self.checkpoint.header.parameters.items()
        }

    def weight(self, parameter: str) -> torch.Tensor:
        """Return all weights of a parameter for inference, flattened; see `read_weight`."""
        return self.read_weight(parameter, 0, self._numel(parameter))

    def read_weight(self, parameter: str, start: int, stop: int) -> torch.Tensor:
        """Return elements `[start, stop)` of a flattened parameter, for inference.

        If the checkpoint has a moving average of the parameter, the elements are those of the
        average.
        """
        kind = EMA if (EMA, parameter) in self._pieces else MASTER
        return self.read(kind, parameter, start, stop)

    def _numel(self, parameter: str) -> int:
        return prod(self.checkpoint.header.parameters[parameter])


def require_same_shapes(
    checkpoint: SavedState, model: Mapping[str, Sequence[int]], within: str = ""
) -> None:
    """Require that a checkpoint has the parameters of the recipe's model, in the same shapes.

    Args:
        checkpoint: the checkpoint to compare.
        model: the shapes of the model's parameters by name.
        within: a prefix; only parameters whose names start with it are compared.

    Raises:
        CheckpointError: the parameters or their shapes differ.
    """
    theirs = checkpoint.header.parameters
    ours = {name: list(shape) for name, shape in model.items()}
    for name in sorted(name for name in ours.keys() | theirs.keys() if name.startswith(within)):
        if ours.get(name) != theirs.get(name):
            raise CheckpointError(
                f"{checkpoint.label} has parameter {name[:200]} of shape {theirs.get(name)}, but "
                f"the recipe's model has {ours.get(name)} (None: no such parameter): use a "
                "checkpoint of the recipe's model"
            )
