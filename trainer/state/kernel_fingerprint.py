"""Comparison of the kernels with which ranks compute, before their bits are compared.

Libraries choose kernels by the processor, by their build and by environment variables, and
different kernels round differently. Without this comparison, a check of slots would blame a healthy
rank. The fingerprint is strict: nodes that it refuses might still compute the same bits.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch

from foundation.cpu_info import CPU_INFO, cpu_fields
from foundation.wording import join_items
from trainer.config import EngineConfig
from trainer.errors import UnequalKernelsError
from trainer.process.distributed import gather_texts
from trainer.process.placement import Placement
from trainer.state import numerics

# Instruction sets by which torch, oneDNN and MKL choose kernels.
_INSTRUCTIONS = re.compile(r"avx|amx|fma|f16c|sse4|asimd|sve|bf16|i8mm")
_IDENTITY = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
_VARIABLES = re.compile(r"(ATEN_CPU_|ONEDNN_|DNNL_|MKL_|CUBLAS_|CUDNN_|NVIDIA_TF32)\w*")
# These variables change only what the libraries print.
_VERBOSE = re.compile(r"\w*(VERBOSE|LOG)\w*")


def kernel_fingerprint(
    engine: EngineConfig, placement: Placement, cpuinfo: Path = CPU_INFO
) -> dict[str, Any]:
    """Return the properties by which libraries select kernels on this rank.

    Args:
        engine: the settings of the engine.
        placement: this rank and its device.
        cpuinfo: the description of the processors by Linux.
    """
    own = numerics.fingerprint(engine, placement)
    own.pop("summation", None)  # not a kernel; may differ between nodes
    return own | {
        "processor": _processor(cpuinfo),
        "torch build": _short_hash(torch.__config__.show()),
        "cuda": f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if _VARIABLES.fullmatch(name) and not _VERBOSE.fullmatch(name)
        },
    }


def require_equal_kernels(engine: EngineConfig, placement: Placement) -> None:
    """Require that all ranks choose the same kernels; a collective.

    Raises:
        UnequalKernelsError: the ranks' fingerprints differ; raised on all ranks.
    """
    own = kernel_fingerprint(engine, placement)
    texts = gather_texts(json.dumps(own), placement)
    first: dict[str, Any] = json.loads(texts[0])
    names = placement.node_names or ("this node",) * len(texts)
    for rank, text in enumerate(texts):
        if different := numerics.differences(first, json.loads(text)):
            found = join_items(
                f"{name} {before!r} and {now!r}" for name, (before, now) in different.items()
            )
            raise UnequalKernelsError(
                f"engine.verify_every_steps is {engine.verify_every_steps} and engine.compile is "
                f"{engine.compile}, but rank 0 on node "
                f"{names[0]} and rank {rank} on node {names[rank]} compute with different kernels, "
                f"so their bits may differ although both are healthy: {found}. Use nodes of one "
                "kind with the same environment (cluster.node_labels), or set "
                "engine.verify_every_steps to 0 and, in a new run, engine.compile to none"
            )


def _processor(cpuinfo: Path) -> str:
    """Return the processor's model and a hash of its instruction sets."""
    fields = cpu_fields(cpuinfo)
    if not fields:
        return "unknown"
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    chosen = sorted(flag for flag in flags if _INSTRUCTIONS.search(flag))
    identity = " ".join(fields[name] for name in _IDENTITY if name in fields)
    return f"{identity}, instruction sets {_short_hash(' '.join(chosen))}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
