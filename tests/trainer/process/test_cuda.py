"""The engine on a GPU. Run with `pytest -m gpu` on a machine with a GPU."""

import json
import sys
from typing import Any

import pytest
import torch
from support.command import run_python

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
]

# A separate process, because DeepSpeed chooses its accelerator on import.
PROGRAM = """
import json, sys
sys.path[:0] = {path!r}
from datetime import timedelta
from support.ranks import engine_jobs, poison_jobs, preflight_jobs
from support.ranks.engine_jobs import Shape
from trainer.process.placement import Placement
from trainer.process.distributed import process_group
from data_pipeline.tasks.translation import PairShape
placement = Placement(device={device!r})
with process_group(placement, timedelta(seconds=60)):
    answer = {expression}
print(json.dumps(answer))
"""


def answer_on(device: str, expression: str) -> Any:
    program = PROGRAM.format(path=sys.path, device=device, expression=expression)
    done = run_python(program, DS_ACCELERATOR=device)  # set before the helpers import DeepSpeed
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def losses_on(device: str, stage: int, precision: str) -> list[float]:
    losses = answer_on(device, f"engine_jobs.train(placement, Shape({stage}, '{precision}'), 6)[0]")
    assert len(losses) == 6
    return losses


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_losses_on_a_gpu_are_close_to_those_on_a_cpu(stage):
    """They are not closer, because dropout draws different random numbers on a GPU."""
    assert losses_on("cuda", stage, "fp32") == pytest.approx(
        losses_on("cpu", stage, "fp32"), rel=5e-2
    )


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_losses_on_a_gpu_are_close_to_fp32(stage):
    bf16, fp32 = (losses_on("cuda", stage, precision) for precision in ("bf16", "fp32"))
    assert bf16 == pytest.approx(fp32, rel=2e-2)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_non_finite_step_on_a_gpu_changes_neither_state_nor_losses(stage, poison):
    bad_slots, unchanged, losses, expected = answer_on(
        "cuda", f"poison_jobs.compared(placement, Shape({stage}), '{poison}')"
    )
    assert bad_slots == [{"loss": 1, "gradient": 4}[poison]]
    assert unchanged
    assert losses == pytest.approx(expected, rel=1e-5)  # sums on a GPU have no fixed order


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_gpu_without_memory_stops_the_run_and_says_what_would_fit(stage):
    message = answer_on(
        "cuda",
        f"preflight_jobs.shortage_of_gpu(placement, Shape({stage}), "
        "[PairShape(4096, 100, 100)], 409600, 200_000_000)",
    )
    assert message.startswith("Rank 0 of 1 cannot fit forward and backward of a micro-batch of")
    assert "its GPU has" in message
    assert "would fit too, but requires a new run" in message
