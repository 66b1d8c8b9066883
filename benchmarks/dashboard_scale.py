"""`transloom dashboard` on a record of a million steps, and on 200 such runs: bytes, time, memory.

    generated record ──▶ parsed completely, line by line, in a separate process   ─┐
                     ──▶ curve file, written as during training: CPU for each step │
                     ──▶ a dashboard; requests of its page, including the first   ─┴▶ ratio, p95

The kernel counts bytes (`rchar` of the dashboard's process); memory is the maximum resident size of
the process. Parsing and first pictures alternate. The 200 runs are links to one record and its
curve file, so that they need little disk space; each has its own card, recipe and checkpoint.

    .venv/bin/python benchmarks/dashboard_scale.py [--steps N] [--runs N] [--pairs N] [--json]

A record of a million steps takes 600 MB in the temporary folder, and its curve file 90 MB.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.cpu import cpu_seconds
from benchmarks.support.trainings import serving
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import HEADER
from run_store.folder import RunFolder, RunMetadata
from run_store.record.curve_file import CurveFile
from run_store.record.recorded_status import write_recorded_status
from transloom.cli.sweep_runs import TRANSLOOM

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.records.checkpoints import make_header
from support.records.long_records import long_record

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "phrasebook.yaml"
PAIRS = 3
# The limits of CPU seconds are for a record of a million steps.
GOAL_BYTES, GOAL_RATIO, GOAL_MEMORY = 20_000_000, 20, 300_000_000
GOAL_CURVES, GOAL_TABLE = 0.15, 0.02
OPENINGS = 10  # number of times that the curves are opened in one dashboard
POINTS = 2000
FEW_POINTS = 100  # number of points for each run, if there are many runs
PARSE = """
import os, sys, time
from transloom.observe.dashboard.serving import NICENESS
from run_store.record.metrics_lines import parse_line
os.nice(NICENESS)
started, began = time.monotonic(), time.process_time()
with open(sys.argv[1], "rb") as record:
    for line in record:
        parse_line(line)
print(time.monotonic() - started, time.process_time() - began)
"""


@dataclass
class Picture:
    """Cost of the responses for the first picture."""

    seconds: float
    cpu_seconds: float
    bytes_read: int


def make_run(path: Path, record: Path, steps: int) -> None:
    """Create a run's folder with links to a record and its curve file."""
    checkpoint = path / "checkpoints" / folder_name(steps)
    checkpoint.mkdir(parents=True)
    os.link(record, path / "metrics.jsonl")
    os.link(record.with_name("curves.bin"), path / "curves.bin")
    card = RunMetadata(id="1", name=path.name, dataset_identity="d", identity={})
    (path / "run.json").write_text(card.model_dump_json())
    (path / "recipe.yaml").write_text(RECIPE.read_text())
    shapes = {f"layer.{number}.weight": [512, 512] for number in range(100)}
    header = make_header(steps, parameters=shapes)
    (checkpoint / HEADER).write_text(header.to_json())
    write_recorded_status(RunFolder(path))


class Dashboard:
    """Process of the command, and requests like those of its page."""

    def __init__(self, pid: int, port: str, token: str) -> None:
        self._pid = pid
        self._connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=600)
        self._headers: dict[str, str] = {}
        entered = self._ask(f"/?token={token}")
        self._headers = {"Cookie": str(entered.getheader("Set-Cookie")).split(";")[0]}

    def picture(self, *paths: str) -> Picture:
        """Send these requests, one after another."""
        before, cpu_before, started = self._bytes(), cpu_seconds(self._pid), time.monotonic()
        for path in paths:
            self.get(path)
        seconds = time.monotonic() - started
        cpu = cpu_seconds(self._pid) - cpu_before
        return Picture(seconds, cpu, self._bytes() - before)

    def get(self, path: str) -> Any:
        return json.loads(self._ask(path).body)

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def close(self) -> None:
        self._connection.close()

    def _bytes(self) -> int:
        counters = Path(f"/proc/{self._pid}/io").read_text()
        return int(re.search(r"rchar: (\d+)", counters)[1])  # type: ignore[index]

    def _ask(self, path: str) -> Any:
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        assert response.status in (200, 303, 404), response.body  # type: ignore[attr-defined]
        return response


@contextmanager
def dashboard(folder: Path, cache: Path) -> Iterator[Dashboard]:
    """Run the command on a folder during the context."""
    environment = {**os.environ, "TRANSLOOM_CACHE": str(cache)}
    command, address = [*TRANSLOOM, "dashboard", str(folder)], r":(\d+)/\?token=(\S+)"
    with (
        serving(command, address, environment) as (pid, found),
        closing(Dashboard(pid, found[1], found[2])) as running,
    ):
        yield running


def first_picture(run: str) -> tuple[str, ...]:
    """Return the paths that the page requests: the table, the curves of a run, and its details."""
    return "/api/runs", f"/api/runs/{run}/curves?points={POINTS}", f"/api/runs/{run}"


def parse_whole(record: Path) -> tuple[float, float]:
    """Return the seconds and CPU seconds of a call at the dashboard's priority."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", PARSE, str(record)], check=True, capture_output=True, text=True
    )
    seconds, cpu_seconds = map(float, result.stdout.split())
    return seconds, cpu_seconds


def write_curves(record: Path) -> float:
    """Write the curve file, and return the CPU seconds."""
    began = time.process_time()
    CurveFile(record.with_name("curves.bin"), record).extend()
    return time.process_time() - began


def openings(running: Dashboard, steps: int) -> list[float]:
    """Return the CPU seconds of the curves of the whole run, and of shorter and shorter ranges."""
    ranges = [(1 + steps // 3, steps // 3 + steps // 2**n) for n in range(OPENINGS)]
    paths = [f"/api/runs/run/curves?points={POINTS}"]
    paths += [f"{paths[0]}&from={first}&to={last}" for first, last in ranges[1:]]
    return [running.picture(path).cpu_seconds for path in paths]


def measure(work: Path, steps: int, runs: int, pairs: int) -> dict[str, Any]:
    record = work / "metrics.jsonl"
    long_record(record, steps, rarity=10)
    writing = write_curves(record) / steps
    make_run(work / "one" / "run", record, steps)
    for number in range(runs):
        make_run(work / "many" / f"run-{number:03d}", record, steps)
    whole, first, curves, tables = [], [], [], []
    for _ in range(pairs):
        whole.append(parse_whole(record))
        with dashboard(work / "one", work / "cache") as running:
            first.append(running.picture(*first_picture("run")))
            one_peak = running.peak_bytes()
        with dashboard(work / "one", work / "cache") as running:
            tables += [running.picture("/api/runs").cpu_seconds for _ in range(OPENINGS)]
            curves += openings(running, steps)
    with dashboard(work / "many", work / "cache-many") as running:
        table = running.picture("/api/runs")
        names = [f"run-{number:03d}" for number in range(runs)]
        few = running.picture(*(f"/api/runs/{name}/curves?points={FEW_POINTS}" for name in names))
        again = running.picture("/api/runs")
        many_peak = running.peak_bytes()
    return {
        "steps": steps,
        "record_bytes": record.stat().st_size,
        "parse_whole_seconds_and_cpu_seconds": whole,
        "cpu_seconds_of_writing_a_step": writing,
        "first_pictures": [asdict(picture) for picture in first],
        "ratios": [ours.seconds / w for ours, (w, _) in zip(first, whole, strict=True)],
        "cpu_ratios": [ours.cpu_seconds / w for ours, (_, w) in zip(first, whole, strict=True)],
        "curves_cpu_seconds_median_p95": [median(curves), quantiles(curves, n=20)[-1]],
        "table_cpu_seconds_median_p95": [median(tables), quantiles(tables, n=20)[-1]],
        "peak_bytes": one_peak,
        "runs": runs,
        "table_of_many": asdict(table),
        f"curves_of_many_{FEW_POINTS}_points_each": asdict(few),
        "table_of_many_again": asdict(again),
        "peak_bytes_of_many": many_peak,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parse_arguments(parser, smoke="--steps 3000 --runs 3 --pairs 1")
    with tempfile.TemporaryDirectory(prefix="dashboard-scale-") as folder:
        found = measure(Path(folder), given.steps, given.runs, given.pairs)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:>34}  {value}")
    if given.smoke:
        return  # such a short record is read whole
    worst = max(picture["bytes_read"] for picture in found["first_pictures"])
    assert worst < GOAL_BYTES, f"{worst:,} bytes read, at most {GOAL_BYTES:,} are allowed"
    for name in ("ratios", "cpu_ratios"):
        assert median(found[name]) < 1 / GOAL_RATIO, f"{name}: {found[name]}"
    for name, goal in (("curves", GOAL_CURVES), ("table", GOAL_TABLE)):
        p95 = found[f"{name}_cpu_seconds_median_p95"][1]
        assert p95 <= goal, f"{name}: {p95:.3f} CPU seconds, at most {goal} are allowed"
    worst = found["table_of_many"]["bytes_read"]
    assert worst < GOAL_BYTES, f"{worst:,} bytes for a table, at most {GOAL_BYTES:,} are allowed"
    assert max(found["peak_bytes"], found["peak_bytes_of_many"]) < GOAL_MEMORY


if __name__ == "__main__":
    main()
