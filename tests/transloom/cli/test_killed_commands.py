"""After a kill at any moment, the same command succeeds and leaves nothing else behind."""

import shutil

import pytest
from support.files import command_faults
from support.files.file_faults import Fault, FaultServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    server = FaultServer(tmp_path_factory.mktemp("faults"))
    yield server
    server.close()


@pytest.mark.long
@pytest.mark.parametrize("fault", [Fault.EXIT, Fault.POWER], ids=["kill", "power"])
@pytest.mark.parametrize("command", command_faults.COMMANDS)
def test_the_same_command_succeeds_after_a_fault_at_any_operation(server, command, fault):
    operations = server.run(command_faults.strike_everywhere, server.folder, command, fault)
    assert operations > 8  # they were really met
