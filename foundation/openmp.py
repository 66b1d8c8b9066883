"""Limit how long idle OpenMP threads of torch spin.

On Linux, torch uses GNU's OpenMP. A thread that has finished waits for the other threads by
spinning up to 300,000 times, which takes about 20 ms. If other processes need the cores, the
spinning thread may occupy the core of the very thread that it waits for, at each of thousands of
small operations. Next to a busy process, a command took 22 s for a translation that takes 5 s with
one thread, and a training step took more than 4 s instead of 1.0 s. Sleeping immediately, without
spinning, makes training a quarter slower on an otherwise idle machine. See
docs/decisions/0072-threads-that-wait.md.
"""

import os

VARIABLE = "GOMP_SPINCOUNT"
POLICY = "OMP_WAIT_POLICY"
SPINS = "10000"  # maximum number of spins, which take about half a millisecond


def limit_openmp_spin() -> None:
    """Limit spinning of waiting threads, in this process and its child processes.

    Settings in the environment take precedence. Call this before torch is imported, since the
    setting is read at that time.
    """
    if POLICY not in os.environ:
        os.environ.setdefault(VARIABLE, SPINS)
