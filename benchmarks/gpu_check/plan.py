"""Define the stages of the GPU check, and the rows of each stage.

The key of a row is the name of a function in the stage's module; an argument of the function
follows after a colon, as in `sdpa_causal:bf16`. The plan can be read without importing torch, so
that the table also lists rows whose stage could not start. The module needs only Python.
"""

from collections.abc import Iterable
from dataclasses import dataclass

ROW_SECONDS = 60.0
STAGE_SECONDS = 240.0
TOTAL_MINUTES = 20.0


@dataclass(frozen=True)
class PlannedRow:
    """Code path to verify.

    Attributes:
        key: name of the row, unique within the stage.
        path: description of the code path, for the table.
        where: the file that contains the code path.
        seconds: time limit of this row, if its stage has the time limit `STAGE_SECONDS`.
    """

    key: str
    path: str
    where: str
    seconds: float = ROW_SECONDS


@dataclass(frozen=True)
class Stage:
    """Rows that one child process runs in sequence.

    Attributes:
        module: module with a function for each row; None if no single machine can run these rows.
    """

    name: str
    module: str | None
    rows: tuple[PlannedRow, ...]


def _both(key: str, path: str, where: str, *, seconds: float = ROW_SECONDS) -> list[PlannedRow]:
    """Return the row twice: in fp32 and in bf16."""
    return [
        PlannedRow(f"{key}:{precision}", f"{path}, {precision}", where, seconds)
        for precision in ("fp32", "bf16")
    ]


def _rows(*rows: PlannedRow | Iterable[PlannedRow]) -> tuple[PlannedRow, ...]:
    found: list[PlannedRow] = []
    for row in rows:
        found.extend([row] if isinstance(row, PlannedRow) else row)
    return tuple(found)


ATTENTION = "model/blocks/attention.py"
ENGINE = "trainer/zero/engine.py"

MACHINE = Stage(
    "machine",
    "benchmarks.gpu_check.machine_stage",
    _rows(
        PlannedRow("driver", "NVIDIA's driver and the GPU", "–"),
        PlannedRow("product", "CUDA in torch: a matrix product, fp32 and bf16", "–"),
        PlannedRow(
            "all_reduce", "NCCL process group of one rank", "trainer/process/distributed.py"
        ),
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
            PlannedRow(
                f"varlen:{name}", f"`varlen_attn` (FA2), {text}, bf16", "model/blocks/varlen.py"
            )
            for name, text in (("self", "self"), ("causal", "causal"), ("cross", "cross"))
        ),
        PlannedRow("varlen_fa3", "`varlen_attn` by FlashAttention-3", "model/blocks/varlen.py"),
        _both("grouped", "grouped queries with rotary positions", "model/blocks/heads.py"),
        _both("rotary", "rotary positions", "model/blocks/rotary.py"),
        _both("rms_norm", "RMSNorm", "model/blocks/norm.py"),
        _both("chunked_loss", "chunked cross-entropy", "model/losses/loss.py"),
        _both("r_drop", "chunked R-Drop", "model/losses/r_drop.py"),
        PlannedRow(
            "activation_checkpointing",
            "activation checkpointing restores the device's random state",
            "model/blocks/layers.py",
        ),
        _both(
            "transformer", "encoder-decoder network, padded (SDPA)", "model/networks/transformer.py"
        ),
        PlannedRow(
            "packed:transformer", "encoder-decoder network, packed", "model/blocks/packing.py"
        ),
        _both(
            "decoder_only",
            "decoder-only network, parts apart by a mask (SDPA)",
            "model/networks/decoder_only.py",
        ),
        PlannedRow(
            "packed:decoder_only", "decoder-only network, packed", "model/networks/decoder_only.py"
        ),
        _both("masked", "encoder-only network with its masked head", "model/heads/masked_head.py"),
        *(
            PlannedRow(
                f"compiled:{kind}-{precision}",
                f"compiled {kind}, {precision}",
                "trainer/zero/compiled_layers.py",
                120.0,
            )
            for kind in ("transformer", "decoder_only")
            for precision in ("fp32", "bf16")
        ),
        PlannedRow("packed:masked", "masked model, packed", "model/networks/encoder_only.py"),
        _both("labels", "encoder-only network with its label head", "model/heads/label_head.py"),
        _both("embeddings", "pooled sentences told apart", "model/heads/sentence_encoder.py"),
        _both("decoding_cache", "beam search with its cache", "model/blocks/cache.py"),
        _both("text_cache", "`generate` of the decoder-only network", "model/blocks/cache.py"),
        PlannedRow("pytest_gpu:tests/model", "`pytest -m gpu tests/model`", "tests/model", 120.0),
    ),
)

_ZERO = {  # ZeRO stages, and the precisions that each of them supports
    0: ("fp32",),
    1: ("fp32", "bf16"),
    2: ("fp32", "bf16"),
    3: ("fp32", "bf16"),
}

ENGINE_STAGE = Stage(
    "engine",
    "benchmarks.gpu_check.engine_stage",
    _rows(
        *(
            PlannedRow(f"zero:{stage}-{precision}", f"ZeRO-{stage}, one rank, {precision}", ENGINE)
            for stage, precisions in _ZERO.items()
            for precision in precisions
        ),
        PlannedRow("two_ranks", "ZeRO-0 to 3, two ranks", "trainer/zero/stages.py", 150.0),
        PlannedRow(
            "fused_adamw", "fused AdamW, its step count on the device", "trainer/zero/adamw.py"
        ),
        PlannedRow(
            "pinned_checkpoint",
            "a checkpoint through pinned memory (`cudaHostRegister`)",
            "trainer/state/checkpoint_writer.py",
        ),
        *(
            PlannedRow(f"resume:{stage}", f"resume, ZeRO-{stage}", "trainer/zero/fragments.py")
            for stage in _ZERO
        ),
        *(
            PlannedRow(f"not_finite:{what}", f"a {what} that is not finite leaves no trace", ENGINE)
            for what in ("loss", "gradient")
        ),
        PlannedRow(
            "does_not_fit",
            "message about a micro-batch that does not fit",
            "trainer/memory/preflight.py",
        ),
    ),
)

EXACT = Stage(
    "exact",
    "benchmarks.gpu_check.exact_stage",
    _rows(
        _both("restart", "same bits over a restart, ZeRO-0 to 3", "trainer/exact/grids.py"),
        PlannedRow(
            "restart_varlen",
            "same bits over a restart, `varlen` (FA2), ZeRO-1 to 3, bf16",
            "model/blocks/varlen.py",
        ),
        _both("stages", "same bits under every ZeRO stage", "trainer/exact/adamw.py"),
        _both(
            "compiled",
            "same bits over restarts, compiled",
            "trainer/zero/compiled_layers.py",
            seconds=150.0,
        ),
        PlannedRow("rms_norm", "same bits under every stage, RMSNorm", "model/blocks/norm.py"),
        PlannedRow("ranks", "same bits on two ranks, ZeRO-0 to 3", "trainer/exact/norm.py", 150.0),
        _both(
            "verified",
            "`verify_reductions`: same bits, no alarm",
            "trainer/zero/reduction_check.py",
        ),
        *(
            PlannedRow(
                f"verify_zero:{stage}-{precision}",
                f"`verify-zero`, one rank, ZeRO-{stage}, {precision}",
                "trainer/verify_zero/zero_cell.py",
                150.0,
            )
            for stage, precision in ((0, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16"))
        ),
    ),
)

PATH = Stage(
    "path",
    "benchmarks.gpu_check.path_stage",
    _rows(
        PlannedRow("prepare", "`prepare`", "data_pipeline/preparation/prepare.py"),
        PlannedRow(
            "train",
            "`train` under Ray, a GPU for each of up to two ranks, validation",
            "cluster/ranks/actor.py",
            150.0,
        ),
        PlannedRow(
            "node_usage", "GPU figures in `nodes.jsonl`", "cluster/ranks/node_meter.py", 150.0
        ),
        PlannedRow(
            "killed",
            "kill -9 of a rank, then of the driver; resume with the same bits",
            "cluster/supervision/restart_loop.py",
            200.0,
        ),
        PlannedRow(
            "evaluate", "`evaluate` of that run (on the CPU)", "transloom/inference/evaluation.py"
        ),
        PlannedRow(
            "translate", "`Translator.load(run, device)`", "transloom/inference/translator.py"
        ),
        PlannedRow(
            "translate_on_cluster",
            "`translate --on-cluster --gpus-per-actor`",
            "transloom/inference/distributed/actors.py",
        ),
        PlannedRow(
            "serve",
            "`serve` of that run (on the CPU)",
            "transloom/inference/serving/replica_process.py",
        ),
        PlannedRow(
            "one_context",
            "one GPU a rank, and no context of spares",
            "cluster/ray/reservation.py",
            120.0,
        ),
    ),
)

_NETWORKS = {
    "base": "Transformer base",
    "big": "Transformer big",
    "gpt": "GPT of 350 million weights",
}

SPEED = Stage(
    "speed",
    "benchmarks.gpu_check.speed_stage",
    _rows(
        *(
            PlannedRow(f"{key}:{network}", f"{name}: {figure}", ENGINE, 120.0)
            for network, name in _NETWORKS.items()
            for key, figure in (
                ("tokens", "target tokens/s"),
                ("tflops", "TFLOP/s"),
                ("mfu", "MFU"),
                ("beside_plain", "below a plain torch loop"),
            )
        ),
        *(
            PlannedRow(f"cost:{kind}", f"time of a step of base, {what}", where, 90.0)
            for kind, what, where in (
                ("bf16", "exact beside fast, bf16", "trainer/exact/optimizer.py"),
                ("fp32", "exact beside fast, fp32", "trainer/exact/optimizer.py"),
                ("verified", "with and without verified sums", "trainer/zero/reduction_check.py"),
            )
        ),
        *(
            PlannedRow(
                f"compiled:{network}",
                f"compiled step of {name}",
                "trainer/zero/compiled_layers.py",
                150.0,
            )
            for network, name in (*_NETWORKS.items(), ("gpt-1b", "GPT of 1.3 billion weights"))
        ),
        *(
            PlannedRow(f"launches:{loop}", f"launches of a step of base, bf16, {loop}", ENGINE)
            for loop in ("fast", "exact", "verified")
        ),
        *(
            PlannedRow(
                f"attention:{length}",
                f"`varlen` beside SDPA, sentences of up to {length} tokens",
                ATTENTION,
            )
            for length in (16, 64, 256, 1024)
        ),
        PlannedRow("data_stall", "waiting for data", "cluster/data/streams.py", 120.0),
        PlannedRow(
            "checkpoint_stall",
            "stall by a checkpoint of 1 GB",
            "trainer/state/checkpoint_writer.py",
        ),
        *(
            PlannedRow(
                f"decoding:{precision}",
                f"beam search of 4, base, {precision}",
                "model/generation/search.py",
            )
            for precision in ("fp32", "bf16")
        ),
    ),
)

# A single machine without a network cannot verify these rows.
ELSEWHERE = Stage(
    "elsewhere",
    None,
    _rows(
        PlannedRow(
            "nodes",
            "several nodes: NCCL's network interface, a shared run folder, lost nodes",
            "cluster/ranks/node_agent.py",
        ),
        PlannedRow("wheels", "`make setup LOCK=cuda`", "Makefile"),
        PlannedRow(
            "gs", "datasets and corpora on gs and s3", "data_pipeline/storage/object_store.py"
        ),
    ),
)

# Rows that need a GPU come first, because the time may not suffice for all rows.
RUN_BY_STAGES = (MACHINE, SPEED, EXACT, PATH, KERNELS, ENGINE_STAGE)
STAGES = (*RUN_BY_STAGES, ELSEWHERE)
