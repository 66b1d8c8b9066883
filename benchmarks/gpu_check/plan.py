"""Stages of the GPU check and the rows that each of them yields.

A row's key is a function of the stage's module, and its argument after a colon: `sdpa_causal:bf16`.
The plan is known without importing torch, so that the table also lists rows whose stage could not
start. Needs nothing but Python.
"""

from collections.abc import Iterable
from dataclasses import dataclass

ROW_SECONDS = 60.0
STAGE_SECONDS = 240.0
TOTAL_MINUTES = 20.0


@dataclass(frozen=True)
class PlannedRow:
    """A code path to verify.

    Attributes:
        key: unique within the stage.
        path: the code path, for the table.
        where: the file that has it.
        seconds: time limit of this row; the stage's limit holds too.
    """

    key: str
    path: str
    where: str
    seconds: float = ROW_SECONDS


@dataclass(frozen=True)
class Stage:
    """Rows that one child process works through.

    Attributes:
        module: has a function for each row; None if no single machine can run these rows.
    """

    name: str
    module: str | None
    rows: tuple[PlannedRow, ...]


def _both(key: str, path: str, where: str, *, seconds: float = ROW_SECONDS) -> list[PlannedRow]:
    """Return the row in fp32 and in bf16."""
    return [
        PlannedRow(f"{key}:{precision}", f"{path}, {precision}", where, seconds)
        for precision in ("fp32", "bf16")
    ]


def _rows(*rows: PlannedRow | Iterable[PlannedRow]) -> tuple[PlannedRow, ...]:
    found: list[PlannedRow] = []
    for row in rows:
        found.extend([row] if isinstance(row, PlannedRow) else row)
    return tuple(found)


ATTENTION = "model/attention.py"
ENGINE = "trainer/zero/engine.py"

MACHINE = Stage(
    "machine",
    "benchmarks.gpu_check.machine_stage",
    _rows(
        PlannedRow("driver", "NVIDIA's driver and the GPU", "–"),
        PlannedRow("product", "CUDA in torch: a matrix product, fp32 and bf16", "–"),
        PlannedRow("all_reduce", "NCCL process group of one rank", "trainer/distributed.py"),
        PlannedRow("locked", "installed versions are those of `locks/cuda.txt`", "Makefile"),
    ),
)

KERNELS = Stage(
    "kernels",
    "benchmarks.gpu_check.kernels_stage",
    _rows(
        _both("sdpa_padded", "SDPA with a padding mask", ATTENTION),
        _both("sdpa_causal", "SDPA, causal", ATTENTION),
        *(
            PlannedRow(
                f"sdpa_kernel_of:{name}", f"SDPA by its kernel {name}, causal, bf16", ATTENTION
            )
            for name in ("flash", "efficient", "cudnn")
        ),
        *(
            PlannedRow(f"varlen:{name}", f"`varlen_attn` (FA2), {text}, bf16", "model/varlen.py")
            for name, text in (("self", "self"), ("causal", "causal"), ("cross", "cross"))
        ),
        PlannedRow("varlen_fa3", "`varlen_attn` by FlashAttention-3", "model/varlen.py"),
        _both("grouped", "grouped queries with rotary positions", "model/heads.py"),
        _both("rotary", "rotary positions", "model/rotary.py"),
        _both("rms_norm", "RMSNorm", "model/norm.py"),
        _both("chunked_loss", "chunked cross-entropy", "model/loss.py"),
        _both("r_drop", "chunked R-Drop", "model/r_drop.py"),
        PlannedRow(
            "activation_checkpointing",
            "activation checkpointing restores the device's random state",
            "model/layers.py",
        ),
        _both("transformer", "encoder-decoder network, padded (SDPA)", "model/transformer.py"),
        PlannedRow("packed:transformer", "encoder-decoder network, packed", "model/packing.py"),
        _both(
            "decoder_only",
            "decoder-only network, parts apart by a mask (SDPA)",
            "model/decoder_only.py",
        ),
        PlannedRow("packed:decoder_only", "decoder-only network, packed", "model/decoder_only.py"),
        _both("masked", "encoder-only network with its masked head", "model/masked_head.py"),
        PlannedRow("packed:masked", "masked model, packed", "model/encoder_only.py"),
        _both("labels", "encoder-only network with its label head", "model/label_head.py"),
        _both("embeddings", "pooled sentences told apart", "model/sentence_encoder.py"),
        _both("decoding_cache", "beam search with its cache", "model/cache.py"),
        _both("text_cache", "`generate` of the decoder-only network", "model/text_cache.py"),
        PlannedRow("pytest_gpu:tests/model", "`pytest -m gpu tests/model`", "tests/model", 120.0),
    ),
)

RUN_BY_STAGES = (MACHINE, KERNELS)
STAGES = RUN_BY_STAGES
