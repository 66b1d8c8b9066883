"""Grid of settings of ZeRO, and the settings of DeepSpeed for each of its cells."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.wording import counted
from trainer.config import EngineConfig
from trainer.recipe import TrainingRecipe

SMALL_BUCKETS = 9  # number of buckets for all gradients, with `small_buckets`
STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Work:
    """First steps of a recipe.

    Attributes:
        recipe: the recipe, with exact numerics.
        steps: the number of steps.
        most_ranks: the largest number of ranks. DeepSpeed averages gradients over ranks, so each
            gradient is first multiplied by the number of ranks. The grids have room for this
            factor.
    """

    recipe: TrainingRecipe
    steps: int
    most_ranks: int


@dataclass(frozen=True)
class Digests:
    """Hashes of a parameter after a step.

    Attributes:
        master: hash of the fp32 weights, which the optimizer updates.
        read: hash of the weights that the forward pass reads.
    """

    master: str
    read: str


@dataclass(frozen=True)
class Cell:
    """Combination of settings that is checked.

    Attributes:
        ranks: the number of ranks.
        stage: the ZeRO stage.
        overlap_comm: whether gradients are reduced during the backward pass.
        small_buckets: whether gradients are reduced in several buckets instead of one. In stage 3,
            small parameters are then partitioned, too.
        offload: whether the optimizer's state is in the memory of the host, and updated there.
        hpz: whether each rank also keeps its node's part of the weights (ZeRO++, arXiv 2306.10209,
            §3.2).
    """

    ranks: int
    stage: int
    overlap_comm: bool = False
    small_buckets: bool = False
    offload: bool = False
    hpz: bool = False

    @property
    def text(self) -> str:
        """The cell in words, such as "2 ranks, stage 3, overlap_comm, hpZ"."""
        parts = {
            "overlap_comm": self.overlap_comm,
            "small buckets": self.small_buckets,
            "offload": self.offload,
            "hpZ": self.hpz,
        }
        on = [name for name, is_on in parts.items() if is_on]
        return ", ".join([counted(self.ranks, "rank"), f"stage {self.stage}", *on])

    def settings(self, engine: EngineConfig, passes: int, elements: int) -> dict[str, Any]:
        """Return the settings of DeepSpeed.

        Args:
            engine: the recipe's precision.
            passes: the number of micro-batches of a rank in a step.
            elements: the number of trained weights.
        """
        bucket = elements // SMALL_BUCKETS if self.small_buckets else elements
        gathered = 2 * self.ranks * -(-bucket // (2 * self.ranks))  # DeepSpeed requires a multiple
        zero: dict[str, Any] = {"stage": self.stage}
        if self.stage:
            zero |= {
                "overlap_comm": self.overlap_comm,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": gathered,
            }
        if self.offload:
            zero["offload_optimizer"] = {"device": "cpu"}
        if self.stage == 3 and self.small_buckets:
            zero["stage3_param_persistence_threshold"] = 0
        if self.hpz:
            zero["zero_hpz_partition_size"] = self.ranks
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": passes,
            "gradient_clipping": 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
        }
        if engine.precision == "bf16":
            settings |= {
                "bf16": {"enabled": True},
                "data_types": {"grad_accum_dtype": "fp32"},
                "communication_data_type": "fp32",
            }
        return settings


def cells(
    ranks: Sequence[int], stages: Sequence[int], precision: str, *, offload: bool
) -> Iterator[Cell]:
    """Yield all cells of the grid that can be compared.

    Args:
        ranks: the numbers of ranks.
        stages: the ZeRO stages.
        precision: `fp32` or `bf16`. Stage 0 has no fp32 weights in bf16. In bf16, a gradient cannot
            be multiplied exactly by a number of ranks that is no power of two.
        offload: whether cells with `Cell.offload` are included.
    """
    for count, stage in itertools.product(ranks, stages):
        if precision == "bf16" and (stage == 0 or count & (count - 1)):
            continue
        if stage == 0:
            yield Cell(count, stage)
            continue
        on_off = (False, True)
        for offloads, overlaps, small, hpz in itertools.product(
            on_off if offload else (False,),
            on_off,
            on_off,
            on_off if stage == 3 and count > 1 else (False,),
        ):
            yield Cell(count, stage, overlaps, small, offloads, hpz)
