"""`transloom metrics`: numbers of runs as OpenMetrics text, printed or served over HTTP."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families
from support.records.lines import (
    COMPARED,
    COUNTED,
    corruption_found,
    rank_hung,
    skipped_line,
    train_line,
    validation_line,
    wrong_reduction,
)
from support.records.run_folders import (
    dead_process,
    made_run,
    with_checkpoint,
    with_owner,
    with_status,
)

from cluster.errors import ClusterError
from run_store.errors import RunMismatchError
from run_store.record.metrics_lines import Resumed
from run_store.record.node_usage import GpuUsage, NodeLine, Usage, append_usage
from run_store.record.run_metrics import NODE_METRICS, RUN_METRICS, SLOW_RANK_FACTOR
from run_store.record.vitals import Vitals

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "transloom.rules.yml"
GPU = GpuUsage(index=1, utilization_percent=75, memory_used_bytes=8, memory_bytes=10)
USAGE = Usage(cpu_percent=25, memory_used_bytes=3, memory_bytes=4, gpus=[GPU])


def values(text):
    """Parse the text strictly; return values by run, then by name and the other labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *(v for name, v in sample.labels.items() if name != "run"))
            found.setdefault(sample.labels["run"], {})[key] = sample.value
    return found


def step(number, seconds, **fields):
    """Return the record of a step that ended `seconds` from now; steps take 10 s in total."""
    totals = {"restarts": 2, "lost_steps": 7, "wall_seconds": 400.0, "counted_seconds": 300.0}
    times = {"time": time.time() + seconds, "step_seconds": 9.0, "goodput": 0.75}
    stalls = {"data_stall_seconds": 4.0, "checkpoint_stall_seconds": 1.0, "wait_seconds": 2.0}
    imbalance = {"compute_imbalance": 0.375}
    return train_line(number, **COUNTED | totals | times | stalls | imbalance | fields)


@pytest.fixture
def run(tmp_path):
    """Return a run in training whose files contain every exported fact."""
    lines = [step(5, -30), step(6, -20), skipped_line(7, in_a_row=1, skipped_steps=4)]
    lines += [skipped_line(8, in_a_row=2, skipped_steps=5, skipped_spikes=3)]
    lines += [corruption_found(6), wrong_reduction(8), rank_hung(8)]
    run = made_run(tmp_path / "full", *lines, Resumed(step=8, from_step=4, restarts=3))
    with_owner(with_checkpoint(run, 4), since="2026-01-01T00:00:00+00:00")
    append_usage(run / "nodes.jsonl", [NodeLine.of(USAGE, time.time(), 6, "gpu-7")])
    waits = "waiting_for_capacity"
    with_status(run, vitals=Vitals(time=time.time(), supervisor=waits))
    return run


def test_metrics_exports_all_facts_of_a_run(transloom, run):
    (found,) = values(transloom("metrics", run).stdout).values()
    assert {name for name, *_ in found} == {*RUN_METRICS, *NODE_METRICS} - {SLOW_RANK_FACTOR}
    ages = {
        name: found.pop((f"transloom_run_{name}_age_seconds",)) for name in ("step", "checkpoint")
    }
    assert 20 <= ages["step"] < 600
    assert 0 <= ages["checkpoint"] < 600
    assert {key: value for key, value in found.items() if not key[0].endswith("_state")} == {
        ("transloom_run_step",): 8,
        ("transloom_run_max_steps",): 20,
        ("transloom_run_ranks",): 1,
        ("transloom_run_target_tokens_per_second",): pytest.approx(1, rel=0.01),
        # From the times of the records: a step computes for 9 of 10 s, at an MFU of 0.4.
        ("transloom_run_tflops_per_second",): pytest.approx(0.4, rel=0.01),
        ("transloom_run_mfu_ratio",): pytest.approx(0.4 * 0.9, rel=0.01),
        ("transloom_run_loss",): pytest.approx(1 / 6),
        ("transloom_run_nll",): pytest.approx(0.9 / 6),
        ("transloom_run_data_stall_ratio",): pytest.approx(0.4, rel=0.01),
        ("transloom_run_wait_ratio",): pytest.approx(0.2, rel=0.01),
        ("transloom_run_grad_norm",): 1,
        ("transloom_run_compute_imbalance_ratio",): 0.375,
        ("transloom_run_learning_rate",): 0.1,
        ("transloom_run_padding_ratio",): 0.1,
        ("transloom_run_target_tokens_seen",): 60,
        ("transloom_run_checkpoint_stall_ratio",): pytest.approx(0.1, rel=0.01),
        ("transloom_run_restarts",): 3,  # 2 before the last step and 1 since
        ("transloom_run_lost_steps",): 7,
        ("transloom_run_goodput_ratio",): 0.75,
        ("transloom_run_wall_seconds",): 400,
        ("transloom_run_counted_seconds",): 300,
        ("transloom_run_skipped_steps",): 5,
        ("transloom_run_skipped_spikes",): 3,
        ("transloom_run_skipped_steps_in_a_row",): 2,
        ("transloom_run_hang_step",): 9,
        ("transloom_run_corruption_step",): 9,
        ("transloom_run_checkpoint_step",): 4,
        ("transloom_run_problems",): 0,
        ("transloom_node_cpu_ratio", "gpu-7"): 0.25,
        ("transloom_node_memory_used_bytes", "gpu-7"): 3,
        ("transloom_node_memory_bytes", "gpu-7"): 4,
        ("transloom_node_gpu_utilization_ratio", "1", "gpu-7"): 0.75,
        ("transloom_node_gpu_memory_used_bytes", "1", "gpu-7"): 8,
        ("transloom_node_gpu_memory_bytes", "1", "gpu-7"): 10,
    }
    states = [key for key, value in found.items() if key[0].endswith("_state") and value]
    assert states == [
        ("transloom_run_state", "training"),
        ("transloom_run_supervisor_state", "waiting_for_capacity"),
    ]


def test_a_slow_rank_is_exported_until_the_ranks_restart(transloom, tmp_path):
    slow = [train_line(n, world_size=3, restarts=2, **COMPARED) for n in (1, 2)]
    normal = train_line(3, world_size=3, restarts=2, **COMPARED | {"slow_ranks": None})
    for name, lines in {
        "slow": slow,
        "normal": [*slow, normal],
        "restarted": [*slow, Resumed(step=2, from_step=2, restarts=3)],
        "resumed": [Resumed(step=0, from_step=0, restarts=2), *slow],
    }.items():
        with_owner(made_run(tmp_path / "runs" / name, *lines))
    made_run(tmp_path / "runs" / "stopped", *slow)
    found = values(transloom("metrics", tmp_path / "runs").stdout)
    told = {
        run: {key[1:]: value for key, value in each.items() if key[0] == SLOW_RANK_FACTOR}
        for run, each in found.items()
    }
    named = {("compute", "node-2", "2"): 2.0}  # label values, sorted by label name
    assert told == {
        "slow": named,
        "resumed": named,
        "normal": {},
        "restarted": {},
        "stopped": {},
    }


def test_metrics_exports_every_run_of_a_folder_even_if_damaged(transloom, run, tmp_path):
    with_owner(made_run(tmp_path / "new"))
    with_owner(made_run(tmp_path / "dead", train_line(1)), process=dead_process())
    damaged = made_run(tmp_path / "damaged", train_line(1))
    for name in ("run.json", "recipe.yaml", "nodes.jsonl"):
        (damaged / name).write_text("{")
    (damaged / "status.json").write_text("{")
    huge = train_line(1).to_json().replace('"world_size": 1', f'"world_size": 1{"0" * 400}')
    (made_run(tmp_path / "made-up") / "metrics.jsonl").write_text(huge + "\n")
    with_status(tmp_path / "made-up")
    (made_run(tmp_path / "folder-as-nodes") / "nodes.jsonl").mkdir()
    (tmp_path / "notes.txt").write_text("no run")
    found = values(transloom("metrics", tmp_path).stdout)
    assert sorted(found) == ["damaged", "dead", "folder-as-nodes", "full", "made-up", "new"]
    state = {
        name: next(key[1] for key, value in of.items() if key[0] == "transloom_run_state" and value)
        for name, of in found.items()
    }
    assert state == {
        "damaged": "damaged",
        "dead": "abandoned",
        "folder-as-nodes": "stopped",
        "full": "training",
        "made-up": "stopped",
        "new": "training",
    }
    assert found["damaged"]["transloom_run_problems",] == 1
    assert ("transloom_run_ranks",) not in found["made-up"]
    assert ("transloom_run_loss",) not in found["new"]
    assert ("transloom_run_step_age_seconds",) in found["new"]  # the age since its owner started
    assert ("transloom_run_step_age_seconds",) not in found["dead"]


def test_the_step_age_of_a_restarted_run_counts_from_the_restart(transloom, tmp_path):
    run = with_owner(made_run(tmp_path / "again", train_line(1)))  # the step's time is in 1970
    (found,) = values(transloom("metrics", run).stdout).values()
    assert found["transloom_run_step_age_seconds",] < 600


def test_metrics_names_the_run_if_the_current_folder_is_given(transloom, run, monkeypatch):
    monkeypatch.chdir(run)
    text = transloom("metrics", ".").stdout
    assert set(values(text)) == {"full"}
    assert 'transloom_node_cpu_ratio{node="gpu-7",run="full"}' in text


def test_a_node_without_recent_samples_is_not_exported(transloom, run):
    append_usage(run / "nodes.jsonl", [NodeLine.of(USAGE, time.time() - 1000, 6, "gone")])
    assert "gone" not in transloom("metrics", run).stdout


def test_steps_before_a_validation_with_long_samples_are_still_read(transloom, tmp_path):
    run = made_run(
        tmp_path / "run", step(1, -20), step(2, -10), validation_line(2, text="x" * 15_000)
    )
    (found,) = values(transloom("metrics", run).stdout).values()
    assert found["transloom_run_loss",] == 0.5


NAMES = [
    'quo"te',
    "back\\slash",
    "line\nend",
    "<img src=x onerror=alert(1)>",
    '"} 1\ntransloom_run_step{run="faked',
    "steers\x1b]0;x\x07\u202e",
    "é🙂",
    os.fsdecode(b"no-utf-8-\xff"),
]


def test_names_of_runs_and_nodes_are_escaped(transloom, tmp_path):
    for name in NAMES:
        # run.json cannot contain every valid folder name, so rename the folder afterwards.
        with_owner(made_run(tmp_path / "made", train_line(1), train_line(2))).rename(
            tmp_path / name
        )
        line = NodeLine.of(USAGE, time.time(), 1, name.encode(errors="replace").decode())
        append_usage(tmp_path / name / "nodes.jsonl", [line])
    # Two names that are equal once escaped: Prometheus rejects the text if a series is repeated.
    made_run(tmp_path / r"steers\x1b]0;x\x07\u202e", train_line(1))
    text = transloom("metrics", tmp_path).stdout
    found = values(text)
    assert len(found) == len(NAMES)
    assert {'quo"te', "back\\slash", "<img src=x onerror=alert(1)>", "é🙂"} <= set(found)
    assert r"line\nend" in found
    assert not set("\x1b\x07\u202e") & set(text)
    assert {of["transloom_run_step",] for of in found.values()} <= {1, 2}


def test_metrics_reports_a_missing_folder_and_accepts_one_without_runs(transloom, tmp_path):
    with pytest.raises(RunMismatchError, match=r"No such file.*or a run.*transloom train"):
        transloom("metrics", tmp_path / "nowhere")
    assert values(transloom("metrics", tmp_path).stdout) == {}


def fetched(url, accept):
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_metrics_serves_a_folder_only_on_the_loopback_address(transloom, run, tmp_path):
    command = [Path(sys.executable).parent / "transloom", "metrics", tmp_path, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = re.search(r"http://\S+", server.stderr.readline())[0]
            kind, text = fetched(url, "application/openmetrics-text; version=1.0.0")
            assert kind.startswith("application/openmetrics-text")
            assert set(values(text)) == {"full"}
            kind, text = fetched(url, "text/plain")
            assert "transloom_run_step" in {family.name for family in plain_families(text)}
            with_owner(made_run(tmp_path / "second"))
            assert set(values(fetched(url, "application/openmetrics-text")[1])) == {
                "full",
                "second",
            }
            listening = [c.laddr for c in psutil.Process(server.pid).net_connections("inet")]
            assert {address.ip for address in listening} == {"127.0.0.1"}
            with pytest.raises(
                ClusterError, match=rf"port {listening[0].port} of .* in use.*--port"
            ):
                transloom("metrics", tmp_path, "--port", listening[0].port)
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


def test_the_prometheus_rules_use_exported_metrics_only(transloom, run):
    rules = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]
    told = {name for name, *_ in values(transloom("metrics", run).stdout)["full"]}
    told.add(SLOW_RANK_FACTOR)
    asked = set()
    for rule in rules:
        names = set(re.findall(r"\b\w+_\w+(?=[{\[ ]|$)", rule["expr"])) - {"max_over_time"}
        names |= set(re.findall(r"transloom_\w+", rule["expr"]))
        asked |= names
        assert names <= told or rule["alert"] == "TransloomMetricsAway"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "remedy"}
    assert len({rule["alert"] for rule in rules}) == len(rules) == 12
    assert "transloom_run_step_age_seconds" in asked
