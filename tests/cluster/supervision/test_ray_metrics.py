"""Export a run's metrics to Ray's metrics endpoint."""

import urllib.request

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from support.cluster.processes import wait_until
from support.records.lines import COMPARED, COUNTED, corruption_found, rank_hung, train_line
from support.records.run_folders import made_run, with_checkpoint, with_owner

from cluster.ray.session import ray_session
from cluster.supervision import ray_metrics
from cluster.supervision.ray_metrics import RayMetrics
from run_store.folder import RunFolder
from run_store.record.run_metrics import RUN_METRICS, SLOW_RANK_FACTOR, run_values


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(ray_metrics, "EXPORT_SECONDS", 0.05)


def at_node(port):
    """Return the metrics of runs at the node's endpoint, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name.removeprefix("ray_"), sample.labels["run"], sample.labels.get("state")): (
                sample.value
            )
            for family in families
            for sample in family.samples
            if sample.name.startswith("ray_transloom_")
        }


@pytest.mark.usefixtures("often")
def test_the_metrics_of_a_run_are_at_the_node_s_metrics_port(ray_head, tmp_path):
    name = 'a "run" of <b>'
    totals = {"restarts": 1, "lost_steps": 0, "wall_seconds": 4.0, "counted_seconds": 3.0}
    lines = [train_line(step, goodput=0.75, **totals, **COUNTED, **COMPARED) for step in (1, 2)]
    lines[1:1] = [corruption_found(1), rank_hung(1)]
    run = with_owner(with_checkpoint(made_run(tmp_path / name, *lines), 1))
    names = {(value.name, name, value.labels.get("state")) for value in run_values(run)}
    with ray_session(ray_head.address), RayMetrics(run, ray_head.address):
        (node,) = [node for node in ray.nodes() if node["Alive"]]
        port = node["MetricsExportPort"]
        wait_until(lambda: names <= at_node(port).keys())
        found = at_node(port)
        normal = train_line(3, **totals, **COMPARED | {"slow_ranks": None})
        with RunFolder(run).metrics.open("a") as file:
            file.write(f"{normal.to_json()}\n")
        wait_until(lambda: at_node(port)[SLOW_RANK_FACTOR, name, None] == 0)
    assert {key[0] for key in names} == RUN_METRICS.keys()
    assert found["transloom_run_step", name, None] == 2
    assert found["transloom_run_goodput_ratio", name, None] == 0.75
    assert found["transloom_run_state", name, "training"] == 1
    assert found["transloom_run_state", name, "failed"] == 0
    assert found[SLOW_RANK_FACTOR, name, None] == 2


@pytest.mark.usefixtures("often")
def test_an_embedded_ray_exports_no_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(RayMetrics, "_export", lambda metrics: pytest.fail("nobody reads them"))
    with RayMetrics(made_run(tmp_path / "run"), None) as metrics:
        assert not metrics._thread.is_alive()
