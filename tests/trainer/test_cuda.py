"""The engine on a GPU. Run with `pytest -m gpu` on a machine that has one."""

import subprocess
import sys

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
]

# A process of its own: DeepSpeed chooses its accelerator when it is imported.
PROGRAM = """
import sys
sys.path[:0] = {path!r}
from datetime import timedelta
from support.engine_jobs import Shape, train
from trainer.distributed import Placement, process_group
placement = Placement(device={device!r})
with process_group(placement, timedelta(seconds=60)):
    losses, _ = train(placement, Shape({stage}, {precision!r}), 6)
print(*losses)
"""


def losses_on(device: str, stage: int, precision: str) -> list[float]:
    program = PROGRAM.format(path=sys.path, device=device, stage=stage, precision=precision)
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return [float(word) for word in output.splitlines()[-1].split()]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_cuda_is_close_to_the_cpu(stage):
    """Not closer: dropout draws other numbers on a GPU."""
    assert losses_on("cuda", stage, "fp32") == pytest.approx(
        losses_on("cpu", stage, "fp32"), rel=5e-2
    )


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_on_cuda_is_close_to_fp32(stage):
    bf16, fp32 = (losses_on("cuda", stage, precision) for precision in ("bf16", "fp32"))
    assert bf16 == pytest.approx(fp32, rel=2e-2)
