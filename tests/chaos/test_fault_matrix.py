"""With each fault at each moment, the run finishes, and its curve is the undisturbed one.

The long form of tests/integration/test_faults.py; `make chaos` runs it. The table of results is
printed at the end. If TRANSLOOM_FAULT_TABLE names a file, the table is appended to that file, and
each moment has a separate run.
"""

import os
from pathlib import Path

import pytest
from support.faults.matrix import CASES, MEMORY_CASES, STORE_CASES
from support.faults.stage import opened_stage
from support.faults.table import Table
from support.storage.commits import check_no_orphans

from data_pipeline.storage.object_store import ObjectStore
from run_store.remote.head import HEAD

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with opened_stage(tmp_path_factory.mktemp("faults")) as stage:
        yield stage


@pytest.fixture(scope="module")
def table(request):
    path = os.environ.get("TRANSLOOM_FAULT_TABLE")
    table = Table(Path(path) if path else None)
    yield table
    if path is None:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{table.text}")


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@each(CASES)
def test_a_run_with_a_fault_has_the_undisturbed_curve(stage, table, case):
    table.add(stage.undergo(case))


@each(MEMORY_CASES)
def test_a_run_with_a_fault_and_memory_checkpoints_has_the_undisturbed_curve(stage, table, case):
    results = stage.undergo(case, "checkpoints.memory_every_steps=4")
    table.add(results, "with memory checkpoints")


@pytest.fixture(scope="module")
def stage_with_store(tmp_path_factory, s3_server):
    """Yield a stage whose processes have the object store's address and credentials."""
    folder = tmp_path_factory.mktemp("store-faults")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setenv("TRANSLOOM_CACHE", str(folder / "cache"))
        with opened_stage(folder) as stage:
            yield stage


@each(STORE_CASES)
def test_a_fault_in_an_s3_run_keeps_the_undisturbed_curve(stage_with_store, s3_server, table, case):
    bucket = s3_server.bucket("faults")
    results = stage_with_store.undergo(case, bucket=bucket)
    (head,) = [info.name for info in ObjectStore(bucket).list() if info.name.endswith(HEAD)]
    check_no_orphans(f"{bucket}/{head.removesuffix(f'/{HEAD}')}", case.fault.name)
    table.add(results, "run in an object store")
