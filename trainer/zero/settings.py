"""Input of DeepSpeed: its settings, the parameter groups, and the optimizer that it wraps."""

from typing import Any

import torch
from torch import nn

from trainer.config import EngineConfig
from trainer.errors import EngineError
from trainer.exact.optimizer import ExactOptimizer
from trainer.registries.optimizers import OPTIMIZERS, OptimizerConfig

LARGEST_BUCKET = 500_000_000  # number of elements; DeepSpeed's default


def deepspeed_config(
    engine: EngineConfig, gradient_clipping: float, slots_per_rank: int, bucket_elements: int
) -> dict[str, Any]:
    """Return DeepSpeed's settings, which replace unsuitable defaults.

    By default DeepSpeed clips gradients at 1.0, averages gradients over ranks, accumulates bf16
    gradients in bf16, compiles a CPU version of Adam at start, and reserves 2 GB for gradients.

    Args:
        engine: precision and ZeRO stage.
        gradient_clipping: the largest norm of the gradients.
        slots_per_rank: the number of passes of a rank in a step.
        bucket_elements: the number of gradient elements that one collective reduces.
    """
    bf16 = engine.precision == "bf16"
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": slots_per_rank,
        "gradient_clipping": gradient_clipping,
        "gradient_allreduce_op": "mean" if engine.zero_stage == 3 else "sum",
        "zero_optimization": {
            "stage": engine.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket_elements,
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16},
        "steps_per_print": 2**31,
    }
    if bf16:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"
    return config


def bucket_elements(model: nn.Module) -> int:
    """Return the number of gradient elements of a bucket: all, unless the model is very large.

    One collective reduces a bucket, and DeepSpeed allocates the bucket in each step. On a CPU, the
    pages of its default bucket of 2 GB are mapped again each time, which takes a sixth of an fp32
    step of a base model.
    """
    return min(LARGEST_BUCKET, sum(p.numel() for p in model.parameters() if p.requires_grad))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices with weight decay; vectors (biases, norms) without it.

    Frozen parameters are in no group. An empty group is left out, because DeepSpeed refuses empty
    groups.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    groups: list[dict[str, Any]], config: OptimizerConfig, engine: EngineConfig
) -> tuple[tuple[str, ...], torch.optim.Optimizer]:
    """Build the recipe's optimizer; return the names of its moments, and the optimizer.

    Raises:
        EngineError: numerics are exact, and the optimizer does not support that.
    """
    kind = OPTIMIZERS[config.type].model_validate(config.options)
    exact = engine.numerics == "exact"
    optimizer = kind.build(groups, config, exact=exact)
    if exact and not isinstance(optimizer, ExactOptimizer):
        raise EngineError(
            f"engine.numerics is 'exact', but trainer.optimizer.type {config.type!r} builds "
            f"{type(optimizer).__name__}, which is not an ExactOptimizer: set engine.numerics to "
            "'fast', or let the OptimizerKind build an ExactOptimizer"
        )
    return kind.moments, optimizer
