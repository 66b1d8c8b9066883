"""A command that was killed at any file operation succeeds when it is run again."""

import pytest
from support.files import command_faults
from support.files.file_faults import Fault


@pytest.mark.long
@pytest.mark.parametrize("fault", [Fault.EXIT, Fault.POWER], ids=["kill", "power"])
@pytest.mark.parametrize("command", command_faults.COMMANDS)
def test_a_command_can_be_repeated_after_a_fault_at_any_operation(fault_server, command, fault):
    found = fault_server.run(command_faults.strike_everywhere, fault_server.folder, command, fault)
    assert len(found) > 9  # faults at this number of operations were tested
