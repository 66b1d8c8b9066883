"""Exact stage of the GPU check with planted faults in runs of a single process."""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import benchmarks.gpu_check.exact_stage as exact_stage
import benchmarks.gpu_check.path_stage as commands
from benchmarks.gpu_check.outcomes import Measurement, Work
from model.blocks import attention
from trainer.zero.reduction_check import ReductionCheck

_calls = itertools.count()
_right = attention.packed_attention


def restart_varlen(work: Work) -> Measurement:
    """Measure with packed attention whose results vary slightly between calls, as with atomics."""
    attention.packed_attention = _unsteady
    return exact_stage.restart_varlen(work)


def verified(work: Work, fault: str) -> Measurement:
    """Measure with a false alarm, or with checksums that change a gradient."""
    if fault == "alarm":
        ReductionCheck.wrong_parameters = lambda *_, **__: [0]  # type: ignore[method-assign]
    else:
        _add = ReductionCheck._add

        def change(self: ReductionCheck, indices: Sequence[int], shifted: list[Tensor]) -> None:
            _add(self, indices, shifted)
            shifted[0].view(-1)[0] += self._shifts[indices[0]] * 2**-22

        ReductionCheck._add = change  # type: ignore[method-assign]
        ReductionCheck.wrong_parameters = lambda *_, **__: []  # type: ignore[method-assign]
    return exact_stage.verified(work, "fp32")


def verify_zero(work: Work, outcome: str) -> Measurement:
    """Measure with a replacement of the command, which takes minutes."""
    commands.prepare = lambda work: Measurement()
    answer = {"verdicts": [{"cell": {"stage": 1}, "outcome": outcome, "parameter": "w"}]}
    code = f"import sys; print({json.dumps(answer)!r}); sys.exit({int(outcome != 'equal')})"
    commands.command = lambda *words: _record(work.folder, words, code)
    return exact_stage.verify_zero(work, "1-bf16")


def _unsteady(*arguments: object) -> Tensor:
    mixed: Tensor = _right(*arguments)  # type: ignore[arg-type]
    return mixed * (1 + next(_calls) * torch.finfo(mixed.dtype).eps)


def _record(folder: Path, words: tuple[object, ...], code: str) -> list[str]:
    (folder / "words.json").write_text(json.dumps([*map(str, words)]))
    return [sys.executable, "-c", code]
