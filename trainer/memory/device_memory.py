"""Memory that a rank may use, and detection of out-of-memory errors."""

from collections.abc import Callable

import torch

from trainer.process import host_memory
from trainer.process.placement import Placement

# A tiny part of a computation predicts the memory of the whole to a factor of two. So a quarter of
# the available memory is ample.
AMPLE_SHARE = 0.25
TINY_DIVISOR = 16  # a tiny part has the rows of a batch divided by this number
_SIGNS = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED", "bad_alloc")
# Complete error messages of oneDNN if it cannot allocate memory for the generated code or the
# operands of a matrix product.
_ONEDNN_SIGNS = ("could not create a primitive", "could not execute a primitive")


def memory_bytes(placement: Placement) -> int:
    """Return the memory of the whole GPU, or this rank's share of the host's free memory."""
    if placement.device == "cuda":
        return int(torch.cuda.get_device_properties(placement.torch_device).total_memory)
    return host_memory.available_bytes() // placement.local_world_size


def has_ample_memory(
    tiny_part: Callable[[], None], growth: float, placement: Placement, more_bytes: int = 0
) -> bool:
    """Return whether the host has several times the memory that a computation needs.

    Args:
        tiny_part: runs a small part of the computation.
        growth: upper bound of the memory of the whole computation, as a multiple of the part's.
        placement: this rank.
        more_bytes: memory that the whole computation needs in addition, in bytes.
    """
    release_cached_memory(placement)  # the part must not reuse cached memory
    host_memory.restart_peak()
    before = host_memory.resident_bytes()
    if not fits(tiny_part, placement):
        return False
    taken = max(0, host_memory.peak_resident_bytes() - before)  # Linux is accurate to about 100 kB
    return growth * taken + more_bytes < AMPLE_SHARE * memory_bytes(placement)


def fits(attempt: Callable[[], None], placement: Placement) -> bool:
    """Return whether an attempt fits into the memory; release the memory that it has freed."""
    try:
        attempt()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        release_cached_memory(placement)
    return True


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
