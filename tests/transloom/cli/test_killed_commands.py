"""After a kill at any moment, the same command succeeds and leaves nothing else behind."""

import pytest
from support.files import command_faults
from support.files.file_faults import Fault


@pytest.mark.long
@pytest.mark.parametrize("fault", [Fault.EXIT, Fault.POWER], ids=["kill", "power"])
@pytest.mark.parametrize("command", command_faults.COMMANDS)
def test_the_same_command_succeeds_after_a_fault_at_any_operation(fault_server, command, fault):
    found = fault_server.run(command_faults.strike_everywhere, fault_server.folder, command, fault)
    assert len(found) > 9  # the operations were really met
