"""Running digest of all data that a run has trained on.

The rank that computes a slot also computes the slot's digest (`trainer.tasks.batch`). This module
folds these digests, in slot order, into one hash. Two runs saw the same data exactly when their
digests are equal.
"""

import hashlib
from collections.abc import Iterable

START = "0" * 64


def fold(digest: str, slot_digests: Iterable[bytes]) -> str:
    """Return the digest after a step from the digest before it; both are hexadecimal."""
    state = hashlib.blake2b(bytes.fromhex(digest), digest_size=32)
    for slot in slot_digests:
        state.update(slot)
    return state.hexdigest()
