"""Whatever ends a process, and at whichever file operation: a checkpoint is there, and whole."""

import pytest
from support.files import commit_faults
from support.files.file_faults import Fault


@pytest.mark.long
def test_a_process_that_ends_at_any_operation_leaves_whole_checkpoints(fault_server):
    """Two ranks' files, commit, pruning: up to some operation the old one counts, then the new."""
    newest = {
        fault: fault_server.run(commit_faults.strike_everywhere, fault_server.folder, fault)
        for fault in (Fault.EXIT, Fault.HALF, Fault.POWER)
    }
    for steps in newest.values():
        assert set(steps) == {10, 20}
        assert steps == sorted(steps)
    # The operations were really met.
    assert len(newest[Fault.EXIT]) == len(newest[Fault.POWER]) > 30
    assert len(newest[Fault.HALF]) >= 5
    # Renamed, the new one counts; of a loss of power it is safe after the next operation, a sync.
    assert newest[Fault.POWER].count(10) == newest[Fault.EXIT].count(10) + 1


@pytest.mark.long
def test_no_space_at_any_operation_costs_a_save_at_most(fault_server):
    """Two saves are made. A fault before the first one may keep the run from beginning."""
    newest = fault_server.run(commit_faults.strike_everywhere, fault_server.folder, Fault.NO_SPACE)
    assert set(newest) == {10, 20, 30}
    assert newest[-1] == 30
    assert len(newest) > 40
