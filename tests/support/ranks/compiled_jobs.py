"""Jobs for a `RankPool` that train with compiled layers, with the engine but without the loop."""

import os
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from cluster.recipe import Recipe
from support.ranks.engine_jobs import digest, full_weights, train_steps
from support.tasks import opened_task
from trainer.assembly.engine import build_engine
from trainer.process.placement import Placement
from trainer.zero import compiled_layers


def train(
    placement: Placement, values: dict[str, Any], steps: int, sizes: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Return the results of a run on random pairs; `steps` may be 0.

    Args:
        values: the recipe.
        sizes: shapes of micro-batches that are computed before the first step.
    """
    from torch._dynamo.utils import counters  # imports the compiler

    counters.clear()
    task, _ = opened_task(Recipe.of(values).training())
    found: dict[str, Any] = {"code": None, "graphs": 0, "losses": []}
    compiled = None
    if task.recipe.engine.compile == "layers":
        compiled_layers._last = None
        compiled = compiled_layers.compile_layers(task, placement)
        found["code"] = compiled.code
        placement = replace(placement, generated_code=compiled.code)
    engine = build_engine(task.recipe, task, placement, compiled)
    for shape in sizes:
        batch = task.synthetic(shape, placement.torch_device)
        engine.forward_backward(
            batch,
            units_global=1,
            is_accumulation_boundary=shape is sizes[-1],
            is_dummy=True,
        )
    if sizes:
        engine.discard_gradients()
    with engine.inference_model() as model, torch.inference_mode():
        for shape in sizes:
            sums = model(*task.synthetic(shape, placement.torch_device).inputs, engine.loss)
            assert sums[0].isfinite()
    if steps:
        found["losses"] = train_steps(engine, 1, steps)
    found["weights"] = {name: digest(weight) for name, weight in full_weights(engine).items()}
    engine.destroy()
    return found | {"graphs": counters["stats"]["unique_graphs"]}


def train_with_cache(placement: Placement, folder: str, *arguments: Any) -> dict[str, Any]:
    """Run `train` with a separate cache of the compiler."""
    with mock.patch.dict(os.environ, TRANSLOOM_CACHE=folder):
        return train(placement, *arguments)
