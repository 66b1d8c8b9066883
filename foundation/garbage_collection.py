"""Imports that nobody looks through for garbage.

Python looks for garbage whenever some hundred objects more have come than gone. Torch and DeepSpeed
make hundreds of thousands of them, all of which stay: a quarter of the CPU time of a rank's imports
went there, 0.7 of 2.95 s on an Intel Xeon (2026-11-23).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Import in the context: what is there at its end is never looked through again.

    For processes of our own, since it holds for all objects, also for garbage that is there.
    """
    was_looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_looking:
            gc.enable()
