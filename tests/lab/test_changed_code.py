"""A source file changed on one host is packaged for the job, or the run is refused."""

import os
import re
import secrets

import pytest
from support.cluster.hosts import PROJECT, Hosts, Names
from support.cluster.ray_on_hosts import BIN, join, start_head

from run_store.folder import RunFolder

pytestmark = [pytest.mark.needs("namespaces"), pytest.mark.timeout(1800)]

CHANGED = PROJECT / "trainer" / "assembly" / "run.py"
SAID, SAID_INSTEAD = "attention is computed by", "attention comes from"


@pytest.fixture
def environment():
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Hosts share the folder of sources, so no compiled form of a changed one may be stored there.
    more = {"RAY_worker_niceness": "0", "WANDB_MODE": "disabled", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **token, **more}


def change_source(hosts, host, folder):
    """Mount a changed text over a source file on one host."""
    other = folder / CHANGED.name
    text = CHANGED.read_text()
    assert SAID in text
    other.write_text(text.replace(SAID, SAID_INSTEAD))
    hosts.run(host, "mount", "--bind", other, CHANGED, env=os.environ)


def outcome(process):
    output, _ = process.communicate()
    return process.returncode, " ".join(output.split())


def test_a_source_changed_on_one_host_is_submitted_with_a_job_and_refused_in_a_run(
    environment, runs, tmp_path_factory, tmp_path
):
    transloom = BIN / "transloom"
    few = ["trainer.max_steps=4", "cluster.cpus_per_rank=1"]
    with Hosts(2, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        head = start_head(hosts, environment, cpus=2, more=["--dashboard-host=0.0.0.0"])
        change_source(hosts, 1, tmp_path)

        # The job is submitted from the second host, and trains with the changed source on the
        # first.
        dashboard = f"http://{hosts.addresses[0]}:8265"
        submit = [transloom, "submit", runs.recipe, *few, "--address", dashboard, "--follow"]
        code, said = outcome(
            hosts.start(1, *submit, "--run", runs.folder / "sent", env=environment)
        )
        assert code == 0, said
        assert SAID_INSTEAD in RunFolder(runs.folder / "sent").log.read_text()

        # A driver on the second host would start ranks on the first with the unchanged source.
        join(hosts, 1, environment)
        theirs = rf"Node {re.escape(hosts.addresses[0])}\b.* has another transloom"
        spread = [*few, "cluster.ranks=2", "cluster.placement=spread", "--address", head]
        command = [runs.recipe, *spread, "--run", runs.folder / "joined"]
        code, said = outcome(hosts.start(1, transloom, "train", *command, env=environment))
        assert code not in (0, 75), said
        assert re.search(theirs, said), said
        assert not RunFolder(runs.folder / "joined").metrics.exists()
