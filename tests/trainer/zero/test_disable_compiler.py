"""Training does not import a compiler, and its AdamW equals torch's."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.zero.disable_compiler import AdamW

TESTS = Path(__file__).resolve().parents[2]
# A separate process, in which nothing else was imported.
PROGRAM = """
import json, sys
from datetime import timedelta
from support.ranks.engine_jobs import Shape, make_engine, train_steps
from trainer.process.distributed import process_group
from trainer.process.placement import Placement
from trainer.zero import fragments

shapes = [Shape(0), Shape(1), Shape(2, "bf16"), Shape(1, numerics="exact"),
          Shape(2, "bf16", numerics="exact")]
found = []
with process_group(Placement(), timedelta(minutes=1)):
    for shape in shapes:
        engine = make_engine(Placement(), shape)
        fragments.create_moments(engine, optimizer_step=0)
        train_steps(engine, 1, 2)
        engine.destroy()
        found.append("torch._dynamo" in sys.modules)
print(json.dumps(found))
"""


@pytest.mark.long
def test_training_does_not_import_the_torch_compiler():
    path = [str(TESTS), str(TESTS.parent)]
    program = f"import sys; sys.path[:0] = {path!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [False] * 5


def test_a_step_of_our_adamw_equals_that_of_torch():
    torch.manual_seed(1)
    ours = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4))]
    theirs = copy.deepcopy(ours)
    settings = {"lr": 0.01, "betas": (0.9, 0.98), "weight_decay": 0.1, "fused": True}
    optimizers = [AdamW(ours, **settings), torch.optim.AdamW(theirs, **settings)]
    for _ in range(3):
        gradients = [torch.randn_like(parameter) for parameter in ours]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for parameter, expected in zip(ours, theirs, strict=True):
        assert torch.equal(parameter, expected)
        assert parameter.requires_grad
