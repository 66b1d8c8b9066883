"""While a run trains, with or without Ray, its nodes' usage is sampled into its folder."""

import threading

import pytest
from support.cluster.processes import wait_until

from cluster.supervision import ray_metrics
from cluster.supervision.ray_metrics import RayMetrics
from run_store.folder import RunFolder
from run_store.record.node_usage import read_usage
from run_store.record.run_status import run_status_of


@pytest.fixture
def exports(monkeypatch):
    """Return the list of exports of the run's metrics to Ray, each of which fails."""
    found = []

    def fail(metrics):
        found.append(metrics)
        raise RuntimeError("no metrics")

    monkeypatch.setattr(ray_metrics, "EXPORT_SECONDS", 0.05)
    monkeypatch.setattr(RayMetrics, "_export", fail)
    return found


@pytest.mark.parametrize("inline", [False, True], ids=["ray", "inline"])
def test_a_run_is_sampled_while_it_trains_and_survives_failed_exports(runs, exports, inline):
    run = RunFolder(runs.folder / "sampled")

    def stop_when_it_was_sampled_in_training():
        wait_until(lambda: any(line.step for lines in sampled() for line in lines))
        wait_until(lambda: len(exports) > 1 or inline)
        run.ask_to_stop()

    def sampled():
        return read_usage(run.nodes).nodes.values()

    watcher = threading.Thread(target=stop_when_it_was_sampled_in_training)
    watcher.start()
    options = ["cluster.ranks=1", "trainer.max_steps=1000000", "cluster.node_usage_seconds=0.05"]
    assert runs.train("sampled", *options, inline=inline).outcome == "stopped"
    watcher.join()
    found = read_usage(run.nodes)
    assert found.problem is None
    assert found.nodes.keys() == run_status_of(run.path).nodes.keys()
    (lines,) = found.nodes.values()
    assert [line.step for line in lines] == sorted(line.step for line in lines)
    assert all(0 < line.memory_used_bytes <= line.memory_bytes for line in lines)
    assert "metrics" not in {thread.name for thread in threading.enumerate()}
