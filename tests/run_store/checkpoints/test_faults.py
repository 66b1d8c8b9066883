"""A process that ends at any file operation leaves a complete checkpoint."""

import pytest
from support.files import commit_faults
from support.files.file_faults import Fault


@pytest.mark.long
def test_a_process_that_ends_at_any_operation_leaves_a_whole_checkpoint(fault_server):
    """An early fault in save, commit or prune leaves step 10 as the newest, a later one step 20."""
    newest = {
        fault: fault_server.run(commit_faults.strike_everywhere, fault_server.folder, fault)
        for fault in (Fault.EXIT, Fault.HALF, Fault.POWER)
    }
    for steps in newest.values():
        assert set(steps) == {10, 20}
        assert steps == sorted(steps)
    # Check that the fault struck at many operations.
    assert len(newest[Fault.EXIT]) == len(newest[Fault.POWER]) > 30
    assert len(newest[Fault.HALF]) >= 5
    # After the rename, step 20 is the newest. It survives a power failure one operation later, when
    # the folder is synced.
    assert newest[Fault.POWER].count(10) == newest[Fault.EXIT].count(10) + 1


@pytest.mark.long
def test_a_full_disk_at_any_operation_loses_at_most_one_save(fault_server):
    """Each process saves twice. A fault before the first save may keep the run from starting."""
    newest = fault_server.run(commit_faults.strike_everywhere, fault_server.folder, Fault.NO_SPACE)
    assert set(newest) == {10, 20, 30}
    assert newest[-1] == 30
    assert len(newest) > 40
