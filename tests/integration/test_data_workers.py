"""Data workers that die, hang, start or end while a run trains do not change the run's numbers."""

import pytest
from support.cluster.processes import wait_until
from support.cluster.sabotage import kill, process_ids, remember
from support.cluster.story import Story
from support.cluster.strike import Strike
from support.faults.moments import FETCH

from cluster.supervision import supervisor
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics

STEPS = "trainer.max_steps=60"


# The number of killed workers, of two.
@pytest.mark.parametrize(
    "killed", [pytest.param(1, marks=pytest.mark.chaos), pytest.param(2, marks=pytest.mark.proof)]
)
def test_killed_workers_change_no_number(runs, one_rank, orders, monkeypatch, capsys, killed):
    """One worker is killed while it answers, so that its answer is lost."""
    started = remember(monkeypatch, supervisor, "DataWorkers")
    hit = []

    def kill_workers(reached):
        others = set(process_ids(started[0])) - {reached.process_id}
        hit.extend([reached.process_id, *others][:killed])
        for process_id in hit:
            kill(process_id)

    with Strike(orders, FETCH, kill_workers):
        runs.train("killed", "cluster.data_workers=2", STEPS)
    assert len(hit) == killed
    assert runs.curve("killed") == one_rank.curve("one-rank")
    assert runs.digests("killed") == one_rank.digests("one-rank")
    assert runs.lines("killed", "event") == []
    log = (runs.folder / "killed" / "log.txt").read_text()
    assert "was lost; sending its request" in log
    assert "to data worker" in log
    detail = "windows read by data workers"  # in the log, but not on the terminal
    assert detail in log
    assert detail not in capsys.readouterr().err


def test_workers_can_be_added_and_removed_while_a_run_trains(runs, one_rank):
    folder = RunFolder(runs.folder / "scaled")

    def wait_for(step, text=""):
        def has_come():
            lines = read_metrics(folder.metrics) if folder.metrics.exists() else []
            return lines and lines[-1].step >= step and text in folder.log.read_text()

        wait_until(has_come)

    def tell():
        wait_for(5)
        folder.request_data_workers(3)
        wait_for(40, "data workers are now 0, 1, 2\n")
        folder.request_data_workers(1)
        wait_for(60, "data workers are now 0\n")

    story = Story(folder, tell)
    runs.train("scaled", "trainer.max_steps=100000")
    story.end()
    assert runs.curve("scaled")[:60] == one_rank.curve("one-rank")
    assert runs.digests("scaled")[:60] == one_rank.digests("one-rank")
    log = folder.log.read_text()
    assert "requested: 1 data worker; now: 3" in log
    assert "control/stop was created: the ranks leave after" in log  # the story ends the run
