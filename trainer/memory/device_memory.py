"""Memory that a rank may use, and detection of out-of-memory errors."""

import torch

from trainer.memory import host_memory
from trainer.rank.placement import Placement

_SIGNS = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED", "bad_alloc")
# Complete error messages of oneDNN if it cannot allocate memory for the generated code or the
# operands of a matrix product.
_ONEDNN_SIGNS = ("could not create a primitive", "could not execute a primitive")


def memory_bytes(placement: Placement) -> int:
    """Return the memory of the whole GPU, or this rank's share of the host's free memory."""
    if placement.device == "cuda":
        return int(torch.cuda.get_device_properties(placement.torch_device).total_memory)
    return host_memory.available_bytes() // placement.local_world_size


def memory_text(memory: int, placement: Placement) -> str:
    """Describe the result of `memory_bytes` for a message."""
    gigabytes = f"{memory / 1e9:.1f} GB"
    if placement.device == "cuda":
        return f"its GPU has {gigabytes}"
    return f"its host had {gigabytes} left for this rank"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that torch, numpy or a library could not allocate memory."""
    said = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or any(sign in said for sign in _SIGNS)
        or said in _ONEDNN_SIGNS
    )


def release_cached_memory(placement: Placement) -> None:
    """Release memory that the allocator caches, so that the next measurement excludes it."""
    if placement.device == "cuda":
        torch.cuda.empty_cache()
    else:
        host_memory.release_freed_memory()
