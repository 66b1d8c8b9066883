"""The alert rules in Debian's Prometheus, on their test cases and on a run that stalls."""

import json
import os
import subprocess
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support.cluster.processes import children, command_of, wait_until
from support.command import TRANSLOOM, transloom
from support.machine_parts import program
from support.records.lines import train_line
from support.records.run_folders import made_run, with_owner

from foundation.free_ports import free_port

pytestmark = pytest.mark.needs("prometheus")

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = DEPLOYED / "transloom.rules.yml"


def promtool(*arguments, **options):
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=DEPLOYED, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_example_configuration_are_valid_for_prometheus():
    count = RULES.read_text().count("- alert:")
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", RULES.name)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_the_output_of_transloom_metrics_is_valid_for_the_node_exporter(tmp_path):
    """The node exporter reads the plain text format, and so does promtool."""
    for name in ("plain", 'a "quoted" <b>'):
        with_owner(made_run(tmp_path / name, train_line(1), train_line(2)))
    text = transloom("metrics", tmp_path, cwd=tmp_path).stdout
    assert text.count("transloom_run_step{") == 2
    assert promtool("check", "metrics", input=text) == ""


def test_each_alert_rule_has_cases_in_which_it_fires_and_does_not_fire():
    assert "SUCCESS" in promtool("test", "rules", "transloom.tests.yml")
    cases = (DEPLOYED / "transloom.tests.yml").read_text()
    for line in RULES.read_text().splitlines():
        if "alert:" in line:
            name = line.split()[-1]
            assert cases.count(f"alertname: {name}") > cases.count(f"{name}, exp_alerts: []"), name


class Prometheus:
    """A Prometheus server on a free port, which scrapes each second."""

    def __init__(self, folder, target):
        self._address = f"127.0.0.1:{free_port()}"
        # Shorten the 15 minutes of one rule for the test; the rest is as shipped.
        rules = RULES.read_text().replace("age_seconds > 900", "age_seconds > 5")
        assert rules != RULES.read_text()
        (folder / RULES.name).write_text(rules)
        config = (DEPLOYED / "prometheus.yml").read_text().replace("30s", "1s")
        (folder / "prometheus.yml").write_text(config.replace("127.0.0.1:9300", target))
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stderr=subprocess.DEVNULL,
        )

    def ask(self, question, **parameters):
        url = f"http://{self._address}/api/v1/{question}?{urllib.parse.urlencode(parameters)}"
        with suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]
        return None

    def value(self, query):
        """Return the newest value of a series, or None."""
        data = self.ask("query", query=query)
        return float(data["result"][0]["value"][1]) if data and data["result"] else None

    def firing(self):
        """Return the names of the firing alerts, with their summaries."""
        data = self.ask("alerts") or {"alerts": []}
        return {
            alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in data["alerts"]
            if alert["state"] == "firing"
        }


@contextmanager
def started(*command, **options):
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def test_a_stalled_run_raises_an_alert_until_it_continues(runs, tmp_path):
    port = free_port()
    deadlines = [f"cluster.deadlines.{name}_seconds=9000" for name in ("answer", "step", "start")]
    options = ["cluster.ranks=1", "trainer.max_steps=1000000", *deadlines]
    (tmp_path / "runs").mkdir()
    (tmp_path / "prometheus").mkdir()
    run = ["--run", tmp_path / "runs" / "stalls"]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    with (
        started(TRANSLOOM, "train", runs.recipe, *options, *run, env=environment) as driver,
        started(TRANSLOOM, "metrics", tmp_path / "runs", "--port", port),
    ):
        prometheus = Prometheus(tmp_path / "prometheus", f"127.0.0.1:{port}")
        try:
            step = 'transloom_run_step{run="stalls"}'
            wait_until(lambda: prometheus.value(step))
            wait_until(lambda: not prometheus.firing())  # a slow start may have raised an alert
            (rank,) = [p for p in children(driver.pid) if "::RankActor" in " ".join(command_of(p))]
            rank.suspend()
            wait_until(prometheus.firing)
            assert "stalls trains, and has recorded no step for" in str(prometheus.firing())
            before = prometheus.value(step)
            assert psutil.Process(rank.pid).status() == psutil.STATUS_STOPPED
            rank.resume()
            wait_until(lambda: prometheus.value(step) > before)
            wait_until(lambda: not prometheus.firing())
        finally:
            prometheus.process.terminate()
            prometheus.process.wait()
