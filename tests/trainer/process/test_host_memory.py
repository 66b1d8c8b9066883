"""Memory of the host and of the process."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from trainer.process import host_memory

MEGABYTE = 1_000_000


def test_the_peak_memory_is_measured_since_its_restart():
    host_memory.release_freed_memory()  # an earlier test may have retained freed memory
    before = host_memory.resident_bytes()
    taken = np.ones(100 * MEGABYTE, dtype=np.uint8)
    assert host_memory.peak_resident_bytes() >= before + taken.nbytes * 0.9
    taken = np.ones(1)
    host_memory.release_freed_memory()
    host_memory.restart_peak()
    assert host_memory.peak_resident_bytes() < before + 50 * MEGABYTE


def test_memory_freed_within_the_heap_is_returned_to_the_host():
    blocks = [np.ones(100_000, dtype=np.uint8) for _ in range(1000)]
    top = np.ones(100_000, dtype=np.uint8)  # glibc keeps freed memory below this block
    taken = host_memory.resident_bytes()
    blocks.clear()
    host_memory.release_freed_memory()
    assert host_memory.resident_bytes() < taken - 50 * MEGABYTE
    assert top.all()


FREED_AGAIN_AND_AGAIN = """
import resource
import numpy as np
from trainer.process.host_memory import retain_freed_memory
{first}
for round in range(5):
    np.ones(100_000_000, dtype=np.uint8)
    if round == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_retained_memory_is_not_requested_from_the_host_again():
    faults = [
        int(subprocess.check_output([sys.executable, "-c", code]))
        for code in (
            FREED_AGAIN_AND_AGAIN.format(first=""),
            FREED_AGAIN_AND_AGAIN.format(first="retain_freed_memory()"),
        )
    ]
    # The bound is only half, because with huge pages few faults cover the same memory.
    assert faults[1] < faults[0] / 2, faults


def test_available_memory_of_a_container_includes_its_file_cache(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 400\nactive_file 200\ninactive_file 50\n")
    assert host_memory.available_in_cgroup(tmp_path) == 350


def test_a_missing_or_unlimited_container_has_no_limit(tmp_path):
    assert host_memory.available_in_cgroup(tmp_path) == sys.maxsize
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.available_in_cgroup(tmp_path) == sys.maxsize
    assert 0 < host_memory.available_bytes() < sys.maxsize


GROWTH = """
import ctypes

libc = ctypes.CDLL(None)
libc.free.argtypes = [ctypes.c_void_p]
libc.sbrk.restype = ctypes.c_void_p

def allocated(size):  # as torch allocates the elements of a tensor
    block = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(block), ctypes.c_size_t(64), ctypes.c_size_t(size)) == 0
    return block

blocks = [allocated(10_000_000 + 16 * (n % 7)) for n in range(30)]
for block in blocks:
    libc.free(block)
end = libc.sbrk(0)
allocated(270_000_000)
print(libc.sbrk(0) - end)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_a_larger_tensor_fits_into_freed_blocks_of_smaller_ones():
    """glibc cuts a few bytes off each block; these must not remain between the free blocks."""
    environment = {**os.environ, **host_memory.ALLOCATOR_ENVIRONMENT}
    assert int(subprocess.check_output([sys.executable, "-c", GROWTH], env=environment)) == 0
