"""How long torch's threads wait for each other awake.

On Linux torch computes with GNU's OpenMP. A thread that is done first waits for the others by
spinning up to 300,000 times, which is some 20 ms. Where other work needs the cores, it may be the
core of the very thread that it waits for, and that at each of thousands of small operations. Beside
a busy process a command took 22 s to translate what takes 5 s with one thread, and a step of a
training more than 4 s in place of 1.0. Falling asleep at once makes training a quarter slower where
nothing else runs. Measured in benchmarks/README.md, waiting_threads.py.
"""

import os

VARIABLE = "GOMP_SPINCOUNT"
POLICY = "OMP_WAIT_POLICY"
SPINS = "10000"  # about half a millisecond


def limit_openmp_spin() -> None:
    """Let threads that wait fall asleep soon, here and in the processes that are started here.

    What the environment says already stays. torch reads it when it is imported: call this before.
    """
    if POLICY not in os.environ:
        os.environ.setdefault(VARIABLE, SPINS)
