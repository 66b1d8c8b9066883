"""All stages of the GPU check on the CPU, as `scripts/gpu_check run --device cpu` runs them."""

import subprocess
import sys

import pytest

from benchmarks.gpu_check.plan import RUN_BY_STAGES
from benchmarks.gpu_check.results import read_results
from benchmarks.support.environments import ROOT

pytestmark = pytest.mark.long
SKIPPED_ON_CPUS = {
    "machine/driver",
    "kernels/sdpa_kernel_of:efficient",
    "kernels/sdpa_kernel_of:cudnn",
    "kernels/varlen_fa3",
    "kernels/pytest_gpu:tests/model",
    "path/one_context",
    *(f"speed/{key}:{network}" for key in ("mfu",) for network in ("base", "big", "gpt")),
}
# Until this version counts floating-point operations.
WITHOUT_FLOPS = {f"speed/tflops:{network}" for network in ("base", "big", "gpt")}


@pytest.mark.timeout(3600)
def test_every_stage_passes_on_the_cpu(tmp_path):
    """With limits for a machine on which others compute, too."""
    before = checkout()
    file = tmp_path / "results.json"
    command = [sys.executable, ROOT / "scripts" / "gpu_check", "run", "--device", "cpu"]
    limits = ["--stage-seconds", "1200", "--minutes", "50"]
    done = subprocess.run(
        [*command, "--results", file, *limits], cwd=tmp_path, capture_output=True, text=True
    )
    rows = read_results(file).rows
    named = {f"{stage.name}/{row.key}" for stage in RUN_BY_STAGES for row in stage.rows}
    assert set(rows) == named
    assert [f"{row.name}: {row.detail}" for row in rows.values() if row.result == "failed"] == []
    assert done.returncode == 0, done.stderr
    skipped = {name for name, row in rows.items() if row.result == "skipped"}
    assert skipped - WITHOUT_FLOPS <= SKIPPED_ON_CPUS | {"machine/locked"}
    assert checkout() == before, "the check leaves nothing in the checkout"


def checkout() -> str:
    status = ["git", "-C", str(ROOT), "status", "--porcelain"]
    return subprocess.run(status, capture_output=True, text=True, check=True).stdout
