"""Mark all tests of this folder `lab`, so that only `make lab` runs them."""

import os
import secrets
import sys
from pathlib import Path

import pytest
from support.cluster.hosts import Hosts, Names
from support.faults.moments import Orders
from support.recipes import tiny_values, write_yaml
from support.runs import Runs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("lab")


@pytest.fixture
def runs(tmp_path, phrasebook):
    """Return runs of the tiny recipe, to read those that hosts train."""
    return _runs(tmp_path, phrasebook)


@pytest.fixture
def orders(runs):
    return Orders(runs.folder / "orders")


@pytest.fixture
def environment(orders):
    """Return the environment of all programs on the hosts; it names no network interface."""
    kept = {n: v for n, v in os.environ.items() if not n.endswith("_SOCKET_IFNAME")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    eager = {"RAY_worker_niceness": "0"}  # the default, 15, is too slow on a busy machine
    return {**kept, **token, **eager, **orders.environment, "WANDB_MODE": "disabled"}


@pytest.fixture(scope="session")
def one_host(tmp_path_factory, phrasebook):
    """Return a run named one-host: 60 steps of the tiny recipe with two ranks on one host."""
    return _on_one_host(tmp_path_factory, phrasebook)


@pytest.fixture(scope="session")
def exact_on_one_host(tmp_path_factory, phrasebook):
    """Return a run on one host with exact numerics, for tests with other numbers of ranks."""
    return _on_one_host(tmp_path_factory, phrasebook, "engine.numerics=exact")


def _on_one_host(tmp_path_factory, phrasebook, *more):
    runs = _runs(tmp_path_factory.mktemp("one-host"), phrasebook)
    options = ["cluster.ranks=2", "trainer.max_steps=60", *more]
    options += ["--run", runs.folder / "one-host"]
    transloom = Path(sys.executable).parent / "transloom"
    environment = {**os.environ, "HOME": str(runs.folder), "WANDB_MODE": "disabled"}
    with Hosts(1, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        hosts.run(0, transloom, "train", runs.recipe, *options, env=environment)
    return runs


def _runs(folder: Path, phrasebook: Path) -> Runs:
    recipe = write_yaml(folder / "tiny.yaml", tiny_values(phrasebook))
    return Runs(recipe, folder, address="")
