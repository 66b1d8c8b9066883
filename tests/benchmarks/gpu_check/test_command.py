"""The command scripts/gpu_check, run by an interpreter without our packages."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command import run_command

from benchmarks.gpu_check.plan import RUN_BY_STAGES
from benchmarks.gpu_check.results import Results, Row, read_results
from benchmarks.support.environments import ROOT


def gpu_check(*arguments, cwd):
    # -I leaves out the user's site packages, the script's folder and PYTHONPATH.
    script = ROOT / "scripts" / "gpu_check"
    return run_command(sys.executable, "-I", "-S", script, *arguments, cwd=cwd)


def write(path, device, result):
    results = Results(device)
    rows = [Row(stage.name, row.key, result) for stage in RUN_BY_STAGES for row in stage.rows]
    results.add(rows)
    results.write(path)
    return len(rows)


def test_the_help_names_the_commands_and_needs_only_python(tmp_path):
    done = gpu_check("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for wanted in ("run --parts gpu-parts --results results.json", "adopt results.json"):
        assert wanted in done.stdout


@pytest.mark.parametrize(("result", "code"), [("passed", 0), ("skipped", 0), ("failed", 1)])
def test_the_exit_code_is_1_if_a_row_failed(tmp_path, result, code):
    file = tmp_path / "results.json"
    count = write(file, "cpu", result)
    done = gpu_check("run", "--device", "cpu", "--results", file, cwd=tmp_path)
    assert f"{count} {result}" in done.stdout
    assert done.returncode == code, done.stderr
    assert (tmp_path / "results.md").read_text().count(f"| {result} |") == count


def test_a_results_file_of_another_device_is_refused(tmp_path):
    file = tmp_path / "results.json"
    write(file, "cpu", "passed")
    before = file.read_text()
    done = gpu_check("run", "--results", file, cwd=tmp_path)
    assert done.returncode == 1
    assert "--device cpu" in done.stderr
    assert "--results" in done.stderr
    assert file.read_text() == before


def test_results_of_a_cpu_are_not_adopted(tmp_path):
    file = tmp_path / "results.json"
    write(file, "cpu", "passed")
    done = gpu_check("adopt", file, cwd=tmp_path)
    assert done.returncode == 1
    assert "--device cpu" in done.stderr


def test_an_unknown_stage_is_refused_with_the_existing_ones(tmp_path):
    done = gpu_check("run", "--results", "r.json", "--stages", "kernels,nope", cwd=tmp_path)
    assert done.returncode == 2
    assert "'nope'" in done.stderr
    assert "machine, speed" in done.stderr


def test_a_stage_is_not_run_if_no_time_remains(tmp_path):
    done = gpu_check(
        *("run", "--device", "cpu", "--results", "r.json", "--minutes", "0"), cwd=tmp_path
    )
    assert done.returncode == 1
    assert "not run" in done.stdout
    assert "repeat the command" in done.stdout


PROGRAM = """
import sys
sys.path[:0] = {path!r}
from argparse import Namespace
from pathlib import Path
from benchmarks.gpu_check.plan import PlannedRow, Stage
from benchmarks.gpu_check.run_command import run
rows = tuple(PlannedRow(key, key, "-") for key in {keys!r})
stage = Stage("planted", "support.gpu_check.planted", rows)
sys.exit(run(Namespace(device="cpu", results=Path("r.json"), stages=[stage], parts=None,
                       work=Path("w"), minutes=1.0, stage_seconds=240.0, retry={retry})))
"""


def program(*keys, retry=False):
    """Return a command that runs a stage of planted rows, as the real command does."""
    text = PROGRAM.format(path=[str(ROOT)], keys=keys, retry=retry)
    return [sys.executable, "-c", text]


def test_sigterm_ends_the_stage_and_keeps_its_finished_rows(tmp_path):
    command = program("passes:one", "hangs")
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        left, results = tmp_path / "w" / "planted" / "left.pid", tmp_path / "r.json"
        while not (left.exists() and left.read_text() and "passes:one" in results.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        process.communicate()
    assert process.returncode != 0
    stat = Path(f"/proc/{left.read_text()}/stat")
    assert not stat.exists() or " Z " in stat.read_text()
    assert list(read_results(results).rows) == ["planted/passes:one"]


def test_a_retry_repeats_only_failed_rows_of_the_named_stages(tmp_path):
    results = Results("cpu")
    rows = [Row("planted", "passes:one", "passed"), Row("planted", "passes:two", "failed")]
    results.add([*rows, Row("kernels", "rotary:fp32", "failed")])
    results.write(tmp_path / "r.json")
    done = subprocess.run(program("passes:one", "passes:two", retry=True), cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "w" / "planted" / "ran.txt").read_text() == "two\n"
    assert read_results(tmp_path / "r.json").rows["kernels/rotary:fp32"].result == "failed"
