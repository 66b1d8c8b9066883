"""Choice of the network interface for ranks on several nodes."""

import os
import socket
import sys
from datetime import timedelta

import psutil
import pytest
from support.cluster.hosts import Hosts, Names

from foundation.free_ports import free_port
from trainer.errors import NetworkError
from trainer.process.distributed import network_interface, process_group, rank_variables
from trainer.process.placement import Placement

ONE_OF_TWO = {"world_size": 2, "local_world_size": 1}


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)


@pytest.fixture
def interfaces(monkeypatch):
    """Patch the interfaces of the machine: two, and the name of one is a prefix of the other's."""

    def entry(address):
        return psutil._ntuples.snicaddr(socket.AF_INET, address, None, None, None)

    held = {
        "lo": [entry("127.0.0.1")],
        "eth10": [entry("10.0.0.10"), entry("10.0.0.11")],
        "eth1": [entry("10.0.0.1")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: held)


@pytest.mark.usefixtures("interfaces")
@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.1", "eth1"), ("10.0.0.11", "eth10"), ("127.0.0.1", "lo")]
)
def test_the_interface_with_the_address_of_the_node_is_chosen(address, name):
    cpu = Placement(**ONE_OF_TWO, node_address=address)
    assert network_interface(cpu) == {"GLOO_SOCKET_IFNAME": name}
    gpu = Placement(**ONE_OF_TWO, node_address=address, device="cuda")
    assert network_interface(gpu) == {"NCCL_SOCKET_IFNAME": f"={name}"}


@pytest.mark.usefixtures("interfaces")
def test_ranks_of_one_node_communicate_over_loopback():
    placement = Placement(world_size=2, local_world_size=2, node_address="10.0.0.1")
    assert network_interface(placement) == {"GLOO_SOCKET_IFNAME": "lo"}


@pytest.mark.parametrize("address", ["10.0.0.1", "192.0.2.77"])
@pytest.mark.usefixtures("interfaces")
def test_an_interface_set_by_the_user_is_kept(monkeypatch, address):
    placement = Placement(**ONE_OF_TWO, node_address=address)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth10")
    assert network_interface(placement) == {}
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # gloo and NCCL take an empty value for unset, too
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth10")  # the variable of the other backend
    if address == "10.0.0.1":
        assert network_interface(placement) == {"GLOO_SOCKET_IFNAME": "eth1"}


@pytest.mark.usefixtures("interfaces")
def test_an_address_without_an_interface_is_reported_with_the_known_ones():
    with pytest.raises(NetworkError) as error:
        network_interface(Placement(**ONE_OF_TWO, node_address="192.0.2.77"))
    assert "has the address 192.0.2.77," in str(error.value)
    assert "are eth1 10.0.0.1; eth10 10.0.0.10, 10.0.0.11; lo 127.0.0.1." in str(error.value)
    assert "Set GLOO_SOCKET_IFNAME to" in str(error.value)


def test_the_interface_variable_is_unset_when_the_group_ends(monkeypatch):
    """Processes started later, such as an embedded Ray, do not inherit it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores them
    with process_group(Placement(), timedelta(seconds=60)):
        assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in os.environ


@pytest.mark.parametrize(("device", "index"), [("cpu", "2"), ("cuda", "0")])
def test_the_local_rank_is_the_index_of_the_device_that_the_process_sees(device, index):
    """On CUDA, DeepSpeed uses the local rank as the GPU's index, and a rank sees one GPU."""
    placement = Placement(rank=5, world_size=8, local_rank=2, local_world_size=3, device=device)
    assert rank_variables(placement) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": index,
        "LOCAL_SIZE": "3",
        "DS_ACCELERATOR": device,
    }


MEETING = """
import sys
from datetime import timedelta
import torch
from trainer.process.placement import Placement
from trainer.process.distributed import process_group, sum_of_integers_over_ranks
rank, address, rendezvous = int(sys.argv[1]), sys.argv[2], sys.argv[3]
placement = Placement(
    rank=rank, world_size=2, local_world_size=1, rendezvous=rendezvous, node_address=address
)
with process_group(placement, timedelta(seconds=60)):
    print(sum_of_integers_over_ranks(40 + rank, placement))
"""


@pytest.mark.long
@pytest.mark.needs("namespaces")
def test_ranks_on_hosts_whose_names_resolve_to_loopback_connect(tmp_path):
    """Two hosts in namespaces; a longer test with Ray is in tests/lab."""
    program = [sys.executable, "-c", MEETING]
    environment = {n: v for n, v in os.environ.items() if not n.endswith("_SOCKET_IFNAME")}
    with Hosts(2, Names.DEBIAN, tmp_path) as hosts:
        rendezvous = f"tcp://{hosts.addresses[0]}:{free_port()}"
        ranks = [
            hosts.start(rank, *program, str(rank), address, rendezvous, env=environment)
            for rank, address in enumerate(hosts.addresses)
        ]
        said = [rank.communicate()[0] for rank in ranks]
    assert [text.splitlines()[-1:] for text in said] == [["81"], ["81"]], said
