"""Losses that are noticed late or cannot be undone: a paused driver, a lost head, a node that is
lost without a message, the drained node of the driver. `make chaos` runs these tests.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from support.cluster.processes import HANG_SECONDS, wait_until
from support.cluster.ray_head import RayHead
from support.recipes import tiny_values

from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics

pytestmark = pytest.mark.chaos

TRANSLOOM = Path(sys.executable).parent / "transloom"


class Training:
    """A `transloom train` process on a separate cluster, with warm spares."""

    def __init__(self, head, recipe, run, *options):
        self.head, self.run = head, RunFolder(run)
        self._arguments = [TRANSLOOM, "train", recipe, "--run", run, "--address", head.address]
        self._arguments += ["cluster.warm_spares=true", "checkpoints.every_steps=10", *options]
        self.start()

    def start(self):
        self.driver = subprocess.Popen(
            self._arguments,
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.head.token},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def step(self):
        lines = read_metrics(self.run.metrics)[-1:] if self.run.metrics.exists() else []
        return lines[0].step if lines else 0

    def reach(self, step):
        wait_until(lambda: self.step() >= step)

    def end(self):
        """Wait until the driver ends; return its exit code and messages."""
        _, errors = self.driver.communicate(timeout=HANG_SECONDS)
        return self.driver.returncode, " ".join(errors.split())


@pytest.fixture
def training(tmp_path, phrasebook):
    """Return a function that starts a run on a separate cluster, stopped after the test."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values(phrasebook, max_steps=100_000)))
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        head = RayHead(Path(folder), cpus=4)
        started = []

        def start(*options):
            started.append(Training(head, recipe, tmp_path / "run", *options))
            return started[-1]

        try:
            yield start
        finally:
            head.stop()
            for one in started:
                one.driver.kill()
                one.driver.communicate()


def test_a_paused_driver_loses_its_processes_and_continues_when_resumed(training):
    run = training("cluster.ranks=2")
    run.reach(30)
    processes = run.head.actors()
    assert run.head.actors("DataWorker")
    run.driver.send_signal(signal.SIGSTOP)
    wait_until(lambda: not any(p.is_running() for p in processes))
    step = run.step()
    run.driver.send_signal(signal.SIGCONT)
    run.reach(step + 10)
    run.driver.send_signal(signal.SIGTERM)
    assert run.end()[0] == 75


def test_a_driver_paused_beyond_its_lease_leaves_the_run_to_a_second_driver(training):
    first = training("cluster.ranks=1")
    first.reach(30)
    processes = first.head.actors()
    first.driver.send_signal(signal.SIGSTOP)
    second = training("cluster.ranks=1")
    wait_until((first.run.path / "owners" / "00000002.json").exists)
    assert not any(p.is_running() for p in processes)  # actors end before the lease expires
    second.reach(first.step() + 10)
    first.driver.send_signal(signal.SIGCONT)
    code, errors = first.end()
    assert code == 1
    assert f"is now owned by process {second.driver.pid} on" in errors
    second.driver.send_signal(signal.SIGTERM)
    assert second.end()[0] == 75


def test_a_lost_ray_head_ends_the_driver_after_the_configured_time(training):
    run = training("cluster.ranks=2", "cluster.wait_for_head_seconds=12")
    run.reach(30)
    run.head.stop()
    lost_at = time.monotonic()
    code, errors = run.end()
    print(f"the driver ended {time.monotonic() - lost_at:.1f} s after its head")
    assert code == 1
    assert "Ray's head has not answered for 12 s (cluster.wait_for_head_seconds)" in errors
    assert "run the same command to continue from the newest checkpoint" in errors
    assert "Traceback" not in errors


def test_a_driver_on_a_drained_node_exits_with_75(training):
    run = training("cluster.ranks=1")
    run.reach(30)
    drain_the_only_node(run.head)
    assert run.end()[0] == 75
    log = run.run.log.read_text()
    assert "is being drained: the ranks leave after a checkpoint" in log
    assert run.step() % 10 or run.step() > 30


def test_a_lost_node_costs_only_its_ranks(training):
    """The node's processes end at once, but Ray takes about 15 s to notice."""
    run = training("cluster.ranks={min: 1, max: 2}", "cluster.cpus_per_rank=3")
    run.reach(5)
    node = run.head.add_node(cpus=3)
    wait_until(lambda: "resized from 1 to 2 ranks" in run.run.log.read_text())
    run.reach(run.step() + 20)
    node.kill()
    lost_at = time.monotonic()
    wait_until(lambda: "resized from 2 to 1 rank" in run.run.log.read_text())
    run.reach(run.step() + 1)
    print(f"next new step {time.monotonic() - lost_at:.1f} s after the node was lost")
    run.driver.send_signal(signal.SIGTERM)
    assert run.end()[0] == 75


def drain_the_only_node(head):
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token}
    program = """
import sys, time, ray
from ray.core.generated import autoscaler_pb2
from ray._raylet import GcsClient
ray.init(sys.argv[1], log_to_driver=False)
(node,) = [node["NodeID"] for node in ray.nodes()]
reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
deadline = int((time.time() + 600) * 1000)
assert GcsClient(address=sys.argv[1]).drain_node(node, reason, "", deadline)[0]
"""
    subprocess.run([sys.executable, "-c", program, head.address], check=True, env=environment)
