"""Numerics fingerprint: everything that can change a run's rounding under the same recipe.

Each checkpoint stores the fingerprint. If the fingerprint has not changed since the checkpoint, a
resumed run repeats the curve bit for bit. Otherwise the data is still the same, and the curve is
the same up to rounding. With `engine.numerics: exact`, the curve stays the same bit for bit even if
the number of ranks or the ZeRO stage changes.
"""

import platform
from importlib.metadata import version
from typing import Any

import torch

from model.blocks.attention import default_backend
from model.blocks.linear import ONEDNN_FROM, uses_onednn
from model.config.transformer import AttentionBackend
from model.losses.loss import GPU_CHUNK_LOGITS
from run_store.record.metrics_lines import EVERY_BIT
from trainer.config import EngineConfig
from trainer.process.network import summation
from trainer.process.placement import Placement

# Version of the sums in trainer/exact and of the linear function; versions round differently.
EXACT_SUMS = {"cpu": 2, "cuda": 3}
# With exact sums, these entries may differ without changing any bit.
_COVERED = {"ranks", "zero_stage", "summation"}
# Entries that earlier versions did not record. If one is missing, it is unknown, and does not count
# as a difference.
_MAY_BE_UNKNOWN = {"summation"}


def fingerprint(engine: EngineConfig, placement: Placement) -> dict[str, Any]:
    """Return the fingerprint of a rank's computations; equal hardware has equal fingerprints."""
    cuda = placement.device == "cuda"
    entries = {
        "ranks": placement.world_size,
        "zero_stage": engine.zero_stage,
        "precision": engine.precision,
        "device": torch.cuda.get_device_name(placement.torch_device) if cuda else _cpu(),
        "threads": placement.threads,
        "attention": str(attention_backend(engine, placement)),
        "dropout": "torch" if cuda else "16 bits",  # see model/blocks/dropout.py
        **({"loss": f"{GPU_CHUNK_LOGITS} logits at a time"} if cuda else {}),
        "torch": str(torch.__version__),  # str, to be unpickled without torch
        "deepspeed": version("deepspeed"),
    }
    if cuda and placement.world_size > 1:  # gloo's sums depend only on torch and ranks
        entries["summation"] = summation(placement)
    if placement.generated_code:
        entries["compiled"] = placement.generated_code
    if engine.numerics == "exact":
        entries["exact_sums"] = EXACT_SUMS[placement.device]
    dtype = torch.bfloat16 if engine.precision == "bf16" else torch.float32
    if uses_onednn(torch.device(placement.device), dtype):
        entries["products"] = f"oneDNN from {ONEDNN_FROM}"  # see model/blocks/linear.py
    if not cuda and dtype is torch.bfloat16 and entries["attention"] == AttentionBackend.MATMUL:
        entries["softmax"] = "fp32 for short rows"  # see model/blocks/attention.py
    return entries


def attention_backend(engine: EngineConfig, placement: Placement) -> AttentionBackend:
    """Return the backend that computes attention."""
    return engine.attention or default_backend(torch.device(placement.device))


def slow_precision(engine: EngineConfig, placement: Placement) -> str | None:
    """Return a warning if fp32 is faster on the device than the recipe's precision, or None."""
    emulated = placement.device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    if engine.precision == "fp32" or not emulated:
        return None
    return (
        f"engine.precision is {engine.precision}, which is slow on this CPU, because the CPU has "
        "no AVX-512. fp32 is several times as fast, but gives another curve"
    )


def _cpu() -> str:
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the entries in which two fingerprints differ, each as [before, now]."""
    return {
        name: [before.get(name), now.get(name)]
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        and not (name in _MAY_BE_UNKNOWN and not (before.get(name) and now.get(name)))
    }


def promise(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Describe how exactly a run continues its curve if its fingerprint changes.

    The data is the same in any case. If losses and weights may differ in some bits, the text names
    the entries of the fingerprint that cause this.
    """
    changed, uncovered = differences(before, now), _uncovered(before, now)
    if not changed:
        return EVERY_BIT
    if not uncovered:
        return f"{EVERY_BIT} although {_and(changed)}, because numerics are exact"
    remedy = (
        ""
        if _exact(before, now) or uncovered.keys() - _COVERED
        else "; engine.numerics=exact avoids this"
    )
    return (
        "same data, but losses and weights are the same only up to rounding, because "
        f"{_and(uncovered)}{remedy}"
    )


def keeps_every_bit(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether losses and weights are the same to the last bit under both fingerprints."""
    return not _uncovered(before, now)


def _uncovered(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the changed entries that may change bits, because exact sums do not cover them."""
    exact = _exact(before, now)
    changed = differences(before, now)
    return {name: values for name, values in changed.items() if not (exact and name in _COVERED)}


def _exact(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return "exact_sums" in before and "exact_sums" in now


def _and(changed: dict[str, list[Any]]) -> str:
    return " and ".join(
        f"{name} was {before} and is {now}" for name, (before, now) in changed.items()
    )
