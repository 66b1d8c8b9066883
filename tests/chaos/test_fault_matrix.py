"""Every fault at every moment: the run finishes, and its curve is the undisturbed one.

The long form of tests/integration/test_faults.py; `make chaos` runs it. The table of results is
appended to the file that TRANSLOOM_FAULT_TABLE names, otherwise printed at the end.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults.matrix import CASES, MEMORY_CASES, STORE_CASES, name_of
from support.faults.stage import opened_stage
from support.faults.table import Table
from support.storage.commits import check_no_orphans

from data_pipeline.storage.object_store import ObjectStore
from trainer.runs.remote.head import HEAD

pytestmark = pytest.mark.chaos


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


@pytest.mark.parametrize(
    ("fault", "moment"), [pytest.param(*case, id=name_of(*case)) for case in CASES]
)
def test_the_curve_is_the_undisturbed_one(stage, table, fault, moment):
    table.add(stage.undergo(fault, moment))


@pytest.mark.parametrize(
    ("fault", "moment"), [pytest.param(*case, id=name_of(*case)) for case in MEMORY_CASES]
)
def test_so_it_is_with_memory_checkpoints(stage, table, fault, moment):
    result = stage.undergo(fault, moment, "checkpoints.memory_every_steps=4")
    table.add(replace(result, fault=f"{result.fault}, with memory checkpoints"))


@pytest.fixture(scope="module")
def stage_with_store(tmp_path_factory, s3_server):
    """A stage whose processes have the object store's address and credentials."""
    folder = tmp_path_factory.mktemp("store-faults")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setenv("TRANSLOOM_CACHE", str(folder / "cache"))
        with opened_stage(folder) as stage:
            yield stage


@pytest.mark.parametrize(
    ("fault", "moment"), [pytest.param(*case, id=name_of(*case)) for case in STORE_CASES]
)
def test_so_it_is_in_an_object_store(stage_with_store, s3_server, table, fault, moment):
    bucket = s3_server.bucket("faults")
    result = stage_with_store.undergo(fault, moment, bucket=bucket)
    (head,) = [info.name for info in ObjectStore(bucket).list() if info.name.endswith(HEAD)]
    check_no_orphans(f"{bucket}/{head.removesuffix(f'/{HEAD}')}", fault.name)
    table.add(replace(result, fault=f"{result.fault}, run in an object store"))
