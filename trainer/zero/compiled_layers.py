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
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as shapes

from model.blocks.attention import additive_mask, mask_of_type
from model.blocks.layers import Decoder, Layer, LayerStack, MaskForm
from model.blocks.linear import ALIGNMENT, is_aligned
from model.blocks.rotary import RotaryPositions, Rotation
from trainer.errors import EngineError, UnequalKernelsError
from trainer.process.distributed import gather_texts
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.tasks.task import TrainingTask
from trainer.zero.frozen import freeze
from trainer.zero.process_wide import engine_process_settings

# Lengths of the synthetic batch.
LENGTH, MEMORY_LENGTH = 48, 56
SUMMED_AT_ONCE = 4096  # elements, as in torch
_OPTIONS = {
    "deterministic": True,  # choose no kernel by its time
    "fallback_random": True,  # draw torch's random numbers
    "max_autotune": False,
    "max_autotune_gemm": False,
    "max_autotune_pointwise": False,
    "coordinate_descent_tuning": False,
    "compile_threads": 1,  # start no processes
}
# Lines that name places in source code, and the numbers of graphs, which other compilations of the
# process count up.
_NEUTRAL = re.compile(r"^\s*# .*\n", re.MULTILINE)


@dataclass(frozen=True)
class CompiledLayers:
    """Compiled layers of a recipe.

    Attributes:
        run: takes a layer and its arguments, and returns the layer's output.
        code: the hash of the generated code.
        one_row: whether the code is for micro-batches of one row, instead of several rows.
    """

    run: Callable[..., Tensor]
    code: str
    one_row: bool

    def use_in(self, network: nn.Module) -> None:
        """Make a network use the compiled layers."""
        for stack in _stacks(network):
            stack.use_compiled(self.run, one_row=self.one_row)

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
                        f"engine.compile is layers, but the parameter {name} of a "
                        f"{type(stack).__name__} is not at a multiple of {ALIGNMENT} bytes, "
                        "because a parameter before it has an odd size. Choose sizes of the model "
                        "and of the vocabulary that are multiples of 8, or set engine.compile=none "
                        "in a new run"
                    )
        self.use_in(network)
        with torch.compiler.set_stance("fail_on_recompile"):
            yield


# What this process has compiled last, by the settings that determine it.
_last: tuple[str, CompiledLayers] | None = None


def compile_layers(task: TrainingTask, placement: Placement) -> CompiledLayers:
    """Compile the layers of a recipe's network; do nothing if this process has done so before.

    Raises:
        EngineError: this node has no C++ compiler, or other users can write to the cache of
            compiled code.
    """
    global _last
    recipe = task.recipe
    rows = max(shape.rows for shape in task.data.widest(task.manifest, recipe.data_settings))
    rows *= 2 if recipe.trainer.r_drop else 1
    settings = json.dumps(
        [
            recipe.model.model_dump(mode="json"),
            recipe.engine.model_dump(mode="json"),
            recipe.trainer.frozen,
            recipe.batching.max_tokens_per_micro_batch,
            rows,
            placement.device,
            placement.threads,
        ]
    )
    if _last is None or _last[0] != settings:
        _require_compiler()
        _require_private_cache()
        _last = settings, _compiled(task, placement, rows == 1)
    return _last[1]


def require_equal_code(layers: CompiledLayers, placement: Placement) -> None:
    """Require that the compiler has generated the same code on all ranks; a collective.

    Raises:
        UnequalKernelsError: a rank has other code; raised on all ranks.
    """
    codes = gather_texts(layers.code, placement)
    names = placement.node_names or ("this node",) * len(codes)
    for rank, code in enumerate(codes):
        if code != codes[0]:
            raise UnequalKernelsError(
                f"engine.compile is layers, but torch's compiler has generated code {codes[0]} for "
                f"rank 0 on node {names[0]} and code {code} for rank {rank} on node {names[rank]}, "
                "so their bits may differ. Use nodes of one kind with the same packages "
                "(cluster.node_labels), or set engine.compile=none in a new run"
            )


def _compiled(task: TrainingTask, placement: Placement, one_row: bool) -> CompiledLayers:
    recipe = task.recipe
    network = freeze(task.build_network(), recipe.trainer.frozen)
    network.checkpoint_activations(recipe.engine.activation_checkpointing)
    dtype = torch.bfloat16 if recipe.engine.precision == "bf16" else None
    network.to(placement.torch_device, dtype)
    exact = recipe.engine.numerics == "exact"
    torch._dynamo.reset()  # nothing that this process compiled for another recipe
    rows = 1 if one_row else max(2, recipe.batching.max_tokens_per_micro_batch // LENGTH)
    layers = CompiledLayers(
        torch.compile(_run, fullgraph=True, options=_OPTIONS), "", one_row
    )
    layers.use_in(network)
    cuda = [placement.torch_device] if placement.device == "cuda" else []
    with (
        engine_process_settings(exact=exact, compiles=True),
        torch.random.fork_rng(cuda),
        # The compiler would take code from its cache that was generated for other sizes.
        torch.compiler.config.patch(cache_key_tag=f"transloom 1, {rows} rows"),
        shapes.patch(use_duck_shape=False),  # equal sizes may differ later
        torch._dynamo.config.patch(automatic_dynamic_shapes=False),
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


def _run(layer: nn.Module, *inputs: Any) -> Tensor:
    y_btm: Tensor = layer(*inputs)
    return y_btm


def _stacks(network: nn.Module) -> list[LayerStack]:
    stacks = [module for module in network.modules() if isinstance(module, LayerStack)]
    if not stacks:
        raise EngineError(
            f"engine.compile is layers, but the network {type(network).__name__} has no LayerStack "
            "(model/blocks/layers.py), whose layers are compiled. Build it from one, or set "
            "engine.compile=none in a new run"
        )
    return stacks


def _pass(network: nn.Module, stack: LayerStack, form: MaskForm, rows: int) -> None:
    """Run the layers forward and, in training mode, backward."""
    layer = stack.layers[0]
    assert isinstance(layer, Layer)
    weight = layer.self_attention.output.weight
    zeros_btm = weight.new_zeros(rows, LENGTH, weight.shape[0])
    mask = _mask(stack, zeros_btm, form)
    rotation = _rotation(network, form, zeros_btm)
    # With frozen parameters, the inputs may have no gradients.
    needs = (True, False) if any(not p.requires_grad for p in network.parameters()) else (True,)
    for of_x, of_memory in product(needs, needs):
        x_btm = _with_dynamic(zeros_btm.clone().requires_grad_(stack.training and of_x), 0, 1)
        memories, memory_mask = None, None
        if isinstance(stack, Decoder):
            memory_bsm = weight.new_zeros(rows, MEMORY_LENGTH, weight.shape[0])
            memory_mask = _mask(stack, memory_bsm, "keys")
            memories = stack.project_memory(
                memory_bsm.requires_grad_(stack.training and of_memory)
            )
            for heads_bgsd in memories[0]:
                _with_dynamic(heads_bgsd, 0, 2)
        y_btm = stack.run_layers(x_btm, mask, rotation, None, memories, memory_mask)
        if y_btm.requires_grad:
            leaves = [p for p in (x_btm, *stack.parameters()) if p.requires_grad]
            torch.autograd.grad(y_btm, leaves, torch.ones_like(y_btm), allow_unused=True)


def _mask(stack: LayerStack, x_btm: Tensor, form: MaskForm) -> Tensor | None:
    if form == "none":
        return None
    visible_bt = x_btm.new_ones(x_btm.shape[:2], dtype=torch.bool)
    if form == "keys":
        mask = additive_mask(visible_bt)[:, None, None, :]
    else:
        mask = additive_mask(visible_bt.unsqueeze(2) & visible_bt.unsqueeze(1)).unsqueeze(1)
    converted = mask_of_type(mask, x_btm, stack.attention_backend, is_compiled=True)
    assert isinstance(converted, Tensor)
    return _with_dynamic(converted, 0, *((3,) if form == "keys" else (2, 3)))


def _rotation(network: nn.Module, form: MaskForm, x_btm: Tensor) -> Rotation | None:
    """Return the rotation with which a network calls its layers, if its positions are rotary."""
    tables = [module for module in network.modules() if isinstance(module, RotaryPositions)]
    if not tables:
        return None
    position = torch.arange(LENGTH, device=x_btm.device)
    # Where a mask separates the parts of rows, positions differ between rows.
    if form == "pairs":
        position = position.repeat(len(x_btm), 1)
    rotation: Rotation = tables[0](position, LENGTH)
    for part in rotation:
        _with_dynamic(part, *range(position.ndim))
    return rotation


def _with_dynamic(tensor: Tensor, *axes: int) -> Tensor:
    """Mark the axes of a tensor whose sizes vary; a size of 1 does not."""
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


def _sums_in_chunks(kernel: Any, reduction_type: str, dtype: torch.dtype, _: bool) -> bool:
    """Return whether to sum in chunks, by the size of the synthetic batch.

    Torch decides by the same limit, but its code then serves only sizes on that side of the limit.
    """
    from torch._inductor.virtualized import V

    if reduction_type != "sum" or dtype is not torch.float:
        return reduction_type == "welford_reduce"
    sizes = [
        V.graph.sizevars.optimization_hint(size)
        for size in kernel.call_ranges[kernel.reduction_depth :]
    ]
    return int(torch.tensor(sizes).prod()) > SUMMED_AT_ONCE


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise EngineError(
            f"engine.compile is layers, but this node has no C++ compiler ({error}). Install g++, "
            "name a compiler in the environment variable CXX, or set engine.compile=none in a new "
            "run"
        ) from error


def _require_private_cache() -> None:
    """Create the compiler's cache, or require that no other user can write code to it."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise EngineError(
            f"engine.compile is layers, but {folder}, where torch's compiler keeps code, is no "
            "folder of this user. Name another folder in the environment variable "
            "TORCHINDUCTOR_CACHE_DIR"
        )
    folder.chmod(0o700)
