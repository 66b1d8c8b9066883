"""Variables of network libraries: which are recorded, and which can change sums."""

import json

import pytest
import torch
from support.ranks.rank_pool import RankPool

from trainer.config import EngineConfig
from trainer.process import network
from trainer.process.network import HIDDEN, network_variables, record_network, summation
from trainer.process.placement import Placement
from trainer.state import numerics
from trainer.state.kernel_fingerprint import kernel_fingerprint

TWO_GPUS = Placement(world_size=2, local_world_size=2, device="cuda")


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Simulate a machine with a GPU, NCCL 2.27.5 and no network variables."""
    for name in network_variables():
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU")


@pytest.mark.parametrize(
    ("name", "value", "recorded"),
    [
        ("NCCL_ALGO", "Ring", "Ring"),
        ("FI_PROVIDER", "efa", "efa"),
        ("UCX_TLS", "rc,cuda", "rc,cuda"),
        ("GLOO_SOCKET_IFNAME", "eth0", "eth0"),
        ("FI_PSM3_UUID", "a-key", HIDDEN),
        ("NCCL_COMM_ID", "10.0.0.1:5000", HIDDEN),
        ("UCX_SOME_TOKEN", "secret", HIDDEN),
        ("NCCL_TUNER_CONFIG_FILE", "https://me:secret@host/x", "https://host/x"),
        ("NCCL_TOPO_FILE", "x" * 5000, "x" * network.MAX_CHARACTERS),
    ],
)
def test_network_variables_are_recorded_without_secrets(monkeypatch, name, value, recorded):
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert network_variables() == {name: recorded}


def test_undecodable_bytes_of_a_variable_are_replaced(monkeypatch):
    monkeypatch.setenv("NCCL_NET", "\udcff")  # as Python decodes the byte 0xFF
    assert network_variables() == {"NCCL_NET": "?"}
    assert "NCCL_NET=?" in summation(TWO_GPUS)


def test_the_number_of_recorded_variables_is_limited(monkeypatch):
    for number in range(2 * network.MAX_VARIABLES):
        monkeypatch.setenv(f"NCCL_X{number}", "1")
    assert len(network_variables()) == network.MAX_VARIABLES


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        *[(f"NCCL_{name}", True) for name in ("ALGO", "PROTO", "MAX_NCHANNELS", "NET_PLUGIN")],
        *[(f"NCCL_{name}", True) for name in ("P2P_DISABLE", "IB_DISABLE", "CONF_FILE", "NEW")],
        *[(f"NCCL_{name}", False) for name in ("DEBUG_SUBSYS", "SOCKET_IFNAME", "IB_TIMEOUT")],
        *[(name, True) for name in ("FI_PROVIDER", "UCX_TLS", "UCX_NET_DEVICES")],
        *[(name, False) for name in ("FI_PROVIDER_PATH", "FI_LOG_LEVEL", "UCX_LOG_LEVEL")],
        ("GLOO_SOCKET_IFNAME", False),
    ],
)
def test_only_variables_that_can_change_the_order_of_sums_are_in_the_fingerprint(
    monkeypatch, name, counts
):
    before = numerics.fingerprint(EngineConfig(), TWO_GPUS)
    assert before["summation"] == "NCCL 2.27.5"
    monkeypatch.setenv(name, "1")
    now = numerics.fingerprint(EngineConfig(), TWO_GPUS)
    assert numerics.keeps_every_bit(before, now) == (not counts)
    assert (f"{name}=1" in now["summation"]) == counts
    exact = [fingerprint | {"exact_sums": 2} for fingerprint in (before, now)]
    assert numerics.keeps_every_bit(*exact)
    promise = numerics.promise(before, now)
    assert ("engine.numerics=exact avoids this" in promise) == counts


def test_a_fingerprint_without_the_summation_field_has_no_difference(monkeypatch):
    now = numerics.fingerprint(EngineConfig(), TWO_GPUS)
    before = {name: value for name, value in now.items() if name != "summation"}
    assert numerics.differences(before, now) == {}
    assert numerics.differences(now, before) == {}
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 0))
    later = numerics.fingerprint(EngineConfig(), TWO_GPUS)
    assert numerics.differences(now, later) == {"summation": ["NCCL 2.27.5", "NCCL 2.28.0"]}


def test_the_fingerprint_of_cpus_and_single_ranks_has_no_summation_field(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    for placement in (Placement(), Placement(world_size=2), Placement(device="cuda")):
        assert "summation" not in numerics.fingerprint(EngineConfig(), placement)
    assert summation(Placement()) == f"gloo of torch {torch.__version__}"


def test_kernel_fingerprints_do_not_depend_on_network_variables(monkeypatch):
    one = kernel_fingerprint(EngineConfig(), TWO_GPUS)
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5_1")
    assert kernel_fingerprint(EngineConfig(), TWO_GPUS) == one


def record_with_other_variables(placement, file):
    with pytest.MonkeyPatch.context() as patch:
        for name in network_variables():
            patch.delenv(name)
        patch.setenv("GLOO_SOCKET_IFNAME", "eth1" if placement.rank == 2 else "eth0")
        record_network(file, placement)


def test_network_json_groups_the_ranks_by_their_variables(rank_pools, tmp_path):
    pool: RankPool = rank_pools(3)
    pool.run(record_with_other_variables, tmp_path / "network.json")
    assert json.loads((tmp_path / "network.json").read_text()) == {
        "version": 1,
        "library": f"gloo of torch {torch.__version__}",
        "groups": [
            {"ranks": [0, 1], "variables": {"GLOO_SOCKET_IFNAME": "eth0"}},
            {"ranks": [2], "variables": {"GLOO_SOCKET_IFNAME": "eth1"}},
        ],
    }


def test_recording_the_network_into_a_missing_folder_does_not_fail(tmp_path):
    file = tmp_path / "missing" / "network.json"
    record_network(file, Placement())
    assert not file.exists()
    file.parent.mkdir()
    record_network(file, Placement())
    assert json.loads(file.read_text())["groups"][0]["ranks"] == [0]
