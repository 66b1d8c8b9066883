"""Hosts that share no folder train a run in an object store, which is on another host.

Dataset and run are in the store. Each host has its own cache, which is lost when the host crashes.
"""

import json
import sys
from pathlib import Path

import pytest
from support.cluster.hosts import Hosts, Names
from support.cluster.lab_run import LabRun
from support.cluster.processes import wait_until
from support.cluster.ray_on_hosts import BIN, join, start_head
from support.recipes import tiny_values, write_yaml
from support.storage import moto_program
from support.storage.s3_server import environment_of

from run_store.run_copies import mirror_folder

pytestmark = [pytest.mark.needs("namespaces"), pytest.mark.timeout(1800)]

STEPS = 60
CACHE = Path("/tmp/cache")  # on each host
STORE = 3  # the host of the object store
MOTO_PROGRAM = Path(moto_program.__file__)
URL = "s3://bucket/runs/moved"
TRAIN = [
    "cluster.placement=spread",
    "cluster.cpus_per_rank=1",
    "cluster.deadlines.answer_seconds=10",
    "cluster.ranks={min: 1, max: 3}",
    "engine.numerics=exact",
    "checkpoints.every_steps=5",
    "data.dataset=s3://bucket/dataset",
    f"trainer.max_steps={STEPS}",
]
FILL = """
import sys
import urllib.request
from pathlib import Path
from data_pipeline.storage.object_store import ObjectStore
endpoint, dataset = sys.argv[1:]
urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", b"", method="PUT")).close()
store = ObjectStore("s3://bucket/dataset")
for path in Path(dataset).rglob("*"):
    if path.is_file():
        store.put(path.relative_to(dataset).as_posix(), path.read_bytes())
"""
DIGEST = """
import json
import sys
from pathlib import Path
from run_store.remote.pull import run_view
from transloom.observe.comparison.comparison import compare_runs
compared = compare_runs(Path(sys.argv[1]), run_view(sys.argv[2]))
print(json.dumps([compared.is_same, compared.steps, compared.checkpoint_step]))
"""


@pytest.fixture
def environment(environment):
    store = environment_of(f"http://10.77.0.{STORE + 1}:5000")
    return {**environment, **store, "TRANSLOOM_CACHE": str(CACHE), "no_proxy": "*"}


def test_a_run_without_shared_storage_shrinks_and_grows_with_its_hosts(
    environment, runs, orders, exact_on_one_host, phrasebook, tmp_path_factory, monkeypatch
):
    """3 ranks, 2 after a host crashes, 3 when it is back; the bits are those of one host."""
    monkeypatch.setenv("TRANSLOOM_CACHE", str(CACHE))
    recipe = write_yaml(runs.folder / "in-store.yaml", tiny_values(phrasebook))
    with Hosts(4, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        serve = [sys.executable, MOTO_PROGRAM, "-H", "0.0.0.0", "-p", "5000"]
        hosts.start(STORE, *serve, env=environment)
        wait_until(lambda: "moto" in str([p.cmdline() for p in hosts.processes(STORE)]))
        fill = [sys.executable, "-c", FILL, environment["AWS_ENDPOINT_URL"], phrasebook]
        wait_until(lambda: hosts.start(0, *fill, env=environment).wait() == 0)
        head = start_head(hosts, environment, cpus=1)
        join(hosts, 1, environment)
        join(hosts, 2, environment)
        command = [BIN / "transloom", "train", recipe, *TRAIN, "--address", head]
        folder = hosts.seen_from_here(0, mirror_folder(URL))
        run = LabRun(hosts, 0, command, folder, orders, environment, url=URL)
        with run.standing_at(11):
            # Rank 0 may be on the host that crashes; with this checkpoint, its record is stored.
            run.wait_for_word("checkpoint of step 10 is complete")
            hosts.crash(1)
            run.wait_for_word("resized from 3 to 2 ranks")
        hosts.boot(1)
        with run.standing_at(33):
            join(hosts, 1, environment)
            run.wait_for_word(
                "there is capacity for more ranks: the ranks leave after a checkpoint"
            )
        run.end()
        assert run.world_sizes == [3, 2, 3]
        whole = exact_on_one_host.folder / "one-host"
        said = hosts.run(2, sys.executable, "-c", DIGEST, whole, URL, env=environment)
        assert json.loads(said.splitlines()[-1]) == [True, STEPS, STEPS]
