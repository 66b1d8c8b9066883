"""Lines of a record for tests, each with all fields."""

from typing import Any

from run_store.record.hang import AbsentRank, Collective, HangFinding
from run_store.record.metrics_lines import (
    CorruptionFound,
    RankHung,
    Sample,
    SkippedLine,
    SlowRankState,
    TrainLine,
    ValidationLine,
    WrongReduction,
)
from trainer.tasks.translation import translation_scores

# Counters of a step that takes two ranks 0.5 s at 40 % of their peak performance.
COUNTED: dict[str, Any] = {
    "model_flops": 4 * 10**12,
    "hardware_flops": 5 * 10**12,
    "tflops_per_second": 8.0,
    "tflops_per_second_per_rank": 4.0,
    "mfu": 0.4,
}
# Times of a step of three ranks, in which rank 2 is slow.
COMPARED: dict[str, Any] = {
    "compute_seconds_min": 0.125,
    "compute_seconds_median": 0.25,
    "compute_seconds_max": 0.5,
    "compute_slowest_rank": 2,
    "compute_imbalance": 0.375,
    "data_stall_seconds_median": 0.0,
    "data_stall_seconds_max": 0.0625,
    "data_slowest_rank": 1,
    "wait_seconds": 0.25,
    "slow_ranks": [SlowRankState(rank=2, node="node-2", cause="compute", factor=2.0)],
}
# Guard values of a skipped step, in which only the loss exceeds its threshold.
SPIKE_FIELDS: dict[str, Any] = {
    "cause": "spike",
    "loss": 9.5,
    "grad_norm": 1.5,
    "loss_threshold": 4.25,
    "grad_norm_threshold": 2.5,
}


def _data_of(step: int) -> dict[str, Any]:
    return {"epoch": 0, "window": 0, "offset": step - 1, "data_digest": f"d{step}"}


def train_line(step: int, **fields: Any) -> TrainLine:
    given: dict[str, Any] = {
        **_data_of(step),
        "time": 1000.0 + step,
        "loss": 1.0 / step,
        "nll": 0.9 / step,
        "learning_rate": 0.1,
        "grad_norm": 1.0,
        "target_tokens": 10,
        "target_tokens_seen": 10 * step,
        "target_tokens_per_second": 20.0,
        "padding_fraction": 0.1,
        "step_seconds": 0.5,
        "data_stall_seconds": 0.0,
        "checkpoint_stall_seconds": 0.0,
        "world_size": 1,
    }
    return TrainLine(step=step, **given | fields)


def skipped_line(step: int, **fields: Any) -> SkippedLine:
    given: dict[str, Any] = {"slots": [1], "ranks": [0], "in_a_row": 1, "skipped_steps": 1}
    return SkippedLine(step=step, **_data_of(step) | given | fields)


def corruption_found(last_step: int, **fields: Any) -> CorruptionFound:
    """Return a line: the next step was not applied, because of rank 1."""
    given: dict[str, Any] = {
        "slots": (3,),
        "ranks": (1,),
        "nodes": ("far",),
        "is_certain": True,
        "is_reproducible": True,
        "last_verified_step": last_step,
    }
    return CorruptionFound(step=last_step, **_finding(last_step) | given | fields)


def wrong_reduction(last_step: int, **fields: Any) -> WrongReduction:
    """Return an event: the gradients of the next step were summed wrongly, and are summed again."""
    given = _finding(last_step) | {"is_repeated": False}
    return WrongReduction(step=last_step, **given | fields)


def _finding(last_step: int) -> dict[str, Any]:
    return {"checked_step": last_step + 1, "parameters": ("x.weight",), "parameter_count": 1}


def rank_hung(last_step: int, node: str = "far", **fields: Any) -> RankHung:
    """Return an event: rank 1 did not enter a collective of the next step."""
    values: dict[str, Any] = {
        "hang_step": last_step + 1,
        "collective": Collective(
            group="1", number=104, operation="gloo:all_reduce", dtype="Float", shape=(7, 2)
        ),
        "absent": (AbsentRank(rank=1, node=node),),
        "absent_count": 1,
        "waiting": (0,),
        "waiting_count": 1,
    }
    return RankHung.of(HangFinding(**values | fields), last_step)


def validation_line(
    step: int, loss: float = 2.0, bleu: float = 30.0, text: str = "x"
) -> ValidationLine:
    return ValidationLine(
        step=step,
        scores=translation_scores(loss, bleu),
        seconds=1.0,
        samples=[Sample(source=text, reference=text, translation=text)],
    )
