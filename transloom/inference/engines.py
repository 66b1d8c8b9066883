"""Check the options of an engine, and create the searcher that translates with a run's weights.

`torch` is our own search with our own network, and the reference for other engines. `ctranslate2`
requires an optional dependency.
"""

from functools import partial

from model.networks.transformer import Transformer
from run_store.folder import RunFolder
from trainer.errors import EngineError
from transloom.inference.ctranslate2.conversion import positions_of, require_supported, write_model
from transloom.inference.ctranslate2.export_cache import cached_files, origin_of
from transloom.inference.ctranslate2.library import require_compute_type
from transloom.inference.ctranslate2.searcher import CTranslate2Searcher
from transloom.inference.engine_names import ComputeType, Engine, Precision
from transloom.inference.searchers import Searcher, network_searcher
from transloom.inference.trained_network import TrainedNetwork


def require_possible(
    engine: Engine, compute_type: ComputeType | None, device: str, precision: Precision
) -> None:
    """Check that an engine supports the requested options, before a network is loaded.

    Raises:
        EngineError: the engine does not support an option, or is not installed.
    """
    if engine is Engine.TORCH:
        if compute_type is not None:
            raise EngineError(
                f"--compute-type is {compute_type}, but only --engine ctranslate2 has this option. "
                f"Use that engine, or use --precision fp32 or bf16 with --engine {engine}"
            )
        return
    if precision != "fp32":
        raise EngineError(
            f"--precision is {precision}, but only --engine torch has this number format. Use "
            f"--compute-type with --engine {engine}; its fastest type is int8"
        )
    if device != "cpu":
        raise EngineError(
            f"--engine {engine} translates only on the CPU, but the device is {device}. Use "
            "--engine torch on this device"
        )
    require_compute_type(compute_type or ComputeType.FLOAT32)


def searcher_of(
    engine: Engine,
    found: TrainedNetwork,
    compute_type: ComputeType | None,
    threads: int | None = None,
) -> Searcher:
    """Return the searcher of an engine, which finds hypotheses with a run's weights.

    Args:
        found: the run's network.
        compute_type: number format of CTranslate2, or None for float32.
        threads: number of CTranslate2's threads, or None for one per core that this process may
            use.

    Raises:
        ModelError: the engine does not support the network; the message names the reason.
    """
    network = found.model
    assert isinstance(network, Transformer)
    if engine is Engine.TORCH:
        return network_searcher(network, found.weights)
    require_supported(network, found.tokenizers)
    positions = positions_of(found.recipe)
    origin = origin_of(found.checkpoint, positions)
    engines = RunFolder(found.weights.run).engines
    write = partial(write_model, network, found.tokenizers, positions)
    return CTranslate2Searcher(
        network,
        found.tokenizers,
        partial(cached_files, engines, origin, write),
        positions,
        compute_type or ComputeType.FLOAT32,
        threads,
    )
