"""Layers compiled from the recipe before the first step, so that all ranks compute the same bits.

    recipe ──▶ a network and synthetic batches ──torch's compiler──▶ code of each kind of layer
        ──▶ its hash, which must be equal on all ranks and is part of the numerics fingerprint

A compiler chooses kernels by the first sizes that it sees. If it saw the micro-batches of a run,
the bits would depend on the order in which a rank happens to train them. So the sizes here follow
from the recipe alone, all sizes of batches are dynamic, nothing is tuned by timing, and nothing is
compiled later: a pass for which there is no code ends the run.

This file has all private names of torch's compiler, as of version 2.13.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as shapes

from data_pipeline.storage.locations import private_cache
from model.blocks.attention import additive_mask
from model.blocks.layers import Decoder, LayerStack, MaskForm
from model.blocks.linear import ALIGNMENT, is_aligned
from model.blocks.rotary import RotaryPositions, Rotation
from trainer.config import EngineConfig
from trainer.errors import EngineError
from trainer.process.placement import Placement
from trainer.tasks.task import TrainingTask
from trainer.zero.frozen import freeze
from trainer.zero.process_wide import engine_process_settings

# Lengths of the synthetic batch.
LENGTH, MEMORY_LENGTH = 48, 56
_OPTIONS: dict[str, Any] = {
    "deterministic": True,  # do not choose kernels by timing
    "fallback_random": True,  # draw the same random numbers as torch
    "max_autotune": False,
    "max_autotune_gemm": False,
    "coordinate_descent_tuning": False,
    "compile_threads": 1,  # start no processes
}
# Comments in generated code. They have source locations, and numbers of graphs, which depend on
# earlier compilations in the process.
_NEUTRAL = re.compile(r"^\s*# .*\n", re.MULTILINE)


@dataclass(frozen=True)
class CompiledLayers:
    """Compiled layers of a recipe.

    Attributes:
        run: takes a layer and its arguments, and returns the layer's output.
        code: the hash of the generated code.
        one_row: whether the code is only for micro-batches of one row; otherwise it is only for
            several rows.
    """

    run: Callable[..., Tensor]
    code: str
    one_row: bool

    def use_in(self, network: nn.Module) -> None:
        """Make a network use the compiled layers."""
        for stack in _stacks(network):
            stack.compiled_layer, stack.compiled_one_row = self.run, self.one_row

    @contextlib.contextmanager
    def training(self, network: nn.Module) -> Iterator[None]:
        """Make the network of an engine use the compiled layers, and refuse to compile anything.

        Raises:
            EngineError: ZeRO has moved a parameter to an address for which there is no code.
        """
        for stack in _stacks(network):
            for name, parameter in stack.layers.named_parameters():
                if not is_aligned(parameter):
                    raise EngineError(
                        f"engine.compile is layers, but {name} is not at a multiple of {ALIGNMENT} "
                        "bytes, because a parameter before it has an odd size: choose sizes of the "
                        "model that are multiples of 8, or set engine.compile=none in a new run"
                    )
        self.use_in(network)
        with torch.compiler.set_stance("fail_on_recompile"):
            yield


# The layers that this process has compiled last, with the settings that determine them.
_last: tuple[str, CompiledLayers] | None = None


def compile_layers(task: TrainingTask, placement: Placement) -> CompiledLayers:
    """Return the compiled layers of a recipe's network; reuse them if they were compiled last.

    Raises:
        EngineError: this node has no C++ compiler, or the cache cannot be used.
    """
    global _last
    recipe = task.recipe
    rows = max(shape.rows for shape in task.data.widest(task.manifest, recipe.data_settings))
    if rows > 1 or recipe.trainer.r_drop:
        rows = max(2, recipe.batching.max_tokens_per_micro_batch // LENGTH)
    settings = f"{recipe.model_dump_json()} {rows} {placement.device} {placement.threads}"
    if _last is None or _last[0] != settings:
        _require_compiler()
        _use_private_cache()
        network = freeze(task.build_network(), recipe.trainer.frozen)
        _last = settings, compile_network(network, recipe.engine, rows, placement)
    return _last[1]


def compile_network(
    network: Any, engine: EngineConfig, rows: int, placement: Placement
) -> CompiledLayers:
    """Compile the layers of a network.

    Args:
        network: the network, which is used for nothing else.
        engine: the settings of the engine.
        rows: the rows of the synthetic batch; 1 if all micro-batches have one row.
        placement: this rank and its device.
    """
    from torch._dynamo import config as dynamo

    network.checkpoint_activations(engine.activation_checkpointing)
    dtype = torch.bfloat16 if engine.precision == "bf16" else None
    network.to(placement.torch_device, dtype)
    torch._dynamo.reset()  # forget code that was compiled for another recipe
    run = torch.compile(_run, fullgraph=True, options=_OPTIONS)
    layers = CompiledLayers(run, "", one_row=rows == 1)
    layers.use_in(network)
    cuda = [placement.torch_device] if placement.device == "cuda" else []
    with (
        engine_process_settings(exact=engine.numerics == "exact", compiles=True),
        torch.random.fork_rng(cuda),
        # Otherwise, the compiler would use cached code that was generated for other sizes.
        mock.patch("torch.compiler.config.cache_key_tag", f"transloom 1, rows: {rows}"),
        # Sizes that are equal here may differ in other batches.
        shapes.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        dynamo.patch(automatic_dynamic_shapes=False),
        _generated_code() as texts,
    ):
        for training in (True, False):
            network.train(training)
            with torch.inference_mode(not training):
                for stack in _stacks(network):
                    for form in stack.mask_forms:
                        _pass(network, stack, form, rows)
    texts = sorted(_NEUTRAL.sub("", text) for text in texts)
    code = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    return replace(layers, code=code)


def _run(layer: nn.Module, *inputs: Any) -> Any:
    return layer(*inputs)


def _stacks(network: nn.Module) -> list[LayerStack]:
    stacks = [module for module in network.modules() if isinstance(module, LayerStack)]
    if not stacks:
        raise EngineError(
            f"engine.compile is layers, but the network {type(network).__name__} has no "
            "model.blocks.layers.LayerStack: build it from one, or set engine.compile=none"
        )
    return stacks


def _pass(network: nn.Module, stack: LayerStack, form: MaskForm, rows: int) -> None:
    """Run the layers forward and, in training mode, backward."""
    weight = next(p for p in stack.layers.parameters() if p.ndim == 2)
    zeros_btm = weight.new_zeros(rows, LENGTH, weight.shape[1])
    mask = _mask(zeros_btm, form)
    rotation = _rotation(network, form, zeros_btm)
    # With frozen parameters, the inputs may have no gradients.
    needs = (True, False) if any(not p.requires_grad for p in network.parameters()) else (True,)
    for of_x, of_memory in product(needs, needs):
        x_btm = _with_dynamic(zeros_btm.clone().requires_grad_(stack.training and of_x), 0, 1)
        memories, memory_mask = None, None
        if isinstance(stack, Decoder):
            memory_bsm = weight.new_zeros(rows, MEMORY_LENGTH, weight.shape[1])
            memory_mask = _mask(memory_bsm, "keys")
            memories = stack.project_memory(memory_bsm.requires_grad_(stack.training and of_memory))
            for heads_bgsd in memories[0]:
                _with_dynamic(heads_bgsd, 0, 2)
        y_btm = stack.run_layers(x_btm, mask, rotation, None, memories, memory_mask)
        if y_btm.requires_grad:
            leaves = [p for p in (x_btm, *stack.parameters()) if p.requires_grad]
            torch.autograd.grad(y_btm, leaves, torch.ones_like(y_btm), allow_unused=True)


def _mask(x_btm: Tensor, form: MaskForm) -> Tensor | None:
    visible_bt = x_btm.new_ones(x_btm.shape[:2], dtype=torch.bool)
    if form == "none":
        return None
    if form == "keys":
        return _with_dynamic(additive_mask(visible_bt)[:, None, None, :], 0, 3)
    visible_btt = visible_bt.unsqueeze(2) & visible_bt.unsqueeze(1)
    return _with_dynamic(additive_mask(visible_btt).unsqueeze(1), 0, 2, 3)


def _rotation(network: nn.Module, form: MaskForm, x_btm: Tensor) -> Rotation | None:
    """Return the rotation with which a network calls its layers, if its positions are rotary."""
    tables = [module for module in network.modules() if isinstance(module, RotaryPositions)]
    if not tables:
        return None
    position = torch.arange(LENGTH, device=x_btm.device)
    # If a mask separates the parts of rows, positions differ between rows.
    if form == "pairs":
        position = position.repeat(len(x_btm), 1)
    rotation: Rotation = tables[0](position, LENGTH)
    for part in rotation:
        _with_dynamic(part, *range(position.ndim))
    return rotation


def _with_dynamic(tensor: Tensor, *axes: int) -> Tensor:
    """Mark axes of a tensor as dynamic, except those of size 1, and return the tensor."""
    for axis in axes:
        if tensor.shape[axis] > 1:
            torch._dynamo.mark_dynamic(tensor, axis)
    return tensor


@contextlib.contextmanager
def _generated_code() -> Iterator[list[str]]:
    """Yield a list that receives each file of code that the compiler loads within the context."""
    from torch._inductor.codecache import PyCodeCache
    from torch._inductor.codegen.cpp import CppKernel

    texts = []
    load = PyCodeCache.load_by_key_path

    def observed(key: str, path: str, *arguments: Any, **options: Any) -> Any:
        texts.append(Path(path).read_text())
        return load(key, path, *arguments, **options)

    with (
        mock.patch.object(PyCodeCache, "load_by_key_path", observed),
        mock.patch.object(CppKernel, "need_use_acc_helper", _sums_in_chunks),
    ):
        yield texts


def _sums_in_chunks(_: Any, reduction_type: str, *__: Any) -> bool:
    """Return whether generated code sums in chunks, for any size.

    Torch would decide by the size, and its code would then be valid only for sizes on the same side
    of a limit.
    """
    return reduction_type == "welford_reduce"


def _require_compiler() -> None:
    program = os.environ.get("CXX", "g++")
    if shutil.which(program) is None:
        raise EngineError(
            f"engine.compile is layers, but this node has no C++ compiler {program}. Install it, "
            "or name another one in the environment variable CXX"
        )


def _use_private_cache() -> None:
    """Make the compiler cache its code in a folder that no other user can change."""
    try:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_cache("compiled"))
    except OSError as error:
        raise EngineError(f"The code of compiled layers cannot be stored: {error}") from error
