"""Estimate the memory of a computation from a small part of it."""

import numpy as np
import pytest
from support.command import run_python

from trainer.memory import device_memory
from trainer.process import host_memory
from trainer.process.placement import Placement

MEGABYTE = 1_000_000


@pytest.mark.parametrize(("growth", "is_ample"), [(4.0, True), (6.0, False)])
def test_memory_of_a_part_predicts_whether_the_whole_fits(monkeypatch, growth, is_ample):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 1000 * MEGABYTE)

    def part():
        assert np.ones(50 * MEGABYTE, np.uint8).all()

    assert device_memory.has_ample_memory(part, growth, Placement()) == is_ample


# Blocks below a kept block stay in the heap when freed, because ranks never return them to the
# host.
AFTER_MUCH_WAS_FREED = """
import numpy as np
from trainer.memory import device_memory
from trainer.process import host_memory
from trainer.process.placement import Placement

blocks = [np.ones(100_000, np.uint8) for _ in range(2000)]
kept = np.ones(100_000, np.uint8)
blocks.clear()
host_memory.available_bytes = lambda: 1_000_000_000
part = lambda: [np.ones(100_000, np.uint8) for _ in range(1000)]
print(device_memory.has_ample_memory(part, 16.0, Placement()))
"""


def test_freed_memory_of_a_rank_does_not_hide_the_need_of_a_computation():
    printed = run_python(AFTER_MUCH_WAS_FREED, **host_memory.ALLOCATOR_ENVIRONMENT)
    assert (printed.returncode, printed.stdout) == (0, "False\n"), printed.stderr
