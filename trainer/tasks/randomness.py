"""Seeds computed from a coordinate, so that dropout depends on neither ranks nor restarts."""

import hashlib

import torch


def seed_of(*coordinate: int | str) -> int:
    """Return a 63-bit seed from a coordinate such as `(seed, "dropout", step, slot)`.

    The mapping must never change.
    """
    text = ":".join(str(part) for part in coordinate)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def seed_torch(*coordinate: int | str) -> None:
    """Seed torch's default generators (CPU and CUDA) from a coordinate."""
    seed = seed_of(*coordinate)
    if torch.backends.cuda.is_built():
        torch.manual_seed(seed)
    else:
        # torch.manual_seed records the call stack for each device that it might seed later, which
        # takes a millisecond in every micro-batch.
        torch.default_generator.manual_seed(seed)
