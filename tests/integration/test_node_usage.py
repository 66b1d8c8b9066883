"""While a run trains, with Ray or without, its folder gets to know how busy its nodes are."""

import threading

import pytest
from support.cluster.processes import wait_until

from trainer.runs.folder import RunFolder
from trainer.runs.place import read_place
from trainer.tracking.node_usage import read_usage


@pytest.mark.parametrize("inline", [False, True], ids=["ray", "inline"])
def test_a_run_that_trains_samples_its_nodes(runs, inline):
    run = RunFolder(runs.folder / "sampled")

    def stop_when_it_is_sampled_in_training():
        wait_until(lambda: any(line.step for lines in sampled() for line in lines))
        run.ask_to_stop()

    def sampled():
        return read_usage(run.nodes).nodes.values()

    watcher = threading.Thread(target=stop_when_it_is_sampled_in_training)
    watcher.start()
    options = ["cluster.ranks=1", "trainer.max_steps=1000000", "cluster.node_usage_seconds=0.05"]
    assert runs.train("sampled", *options, inline=inline).outcome == "preempted"
    watcher.join()
    found = read_usage(run.nodes)
    assert found.problem is None
    assert found.nodes.keys() == read_place(run).nodes.keys()
    (lines,) = found.nodes.values()
    assert [line.step for line in lines] == sorted(line.step for line in lines)
    assert all(0 < line.memory_used_bytes <= line.memory_bytes for line in lines)


def test_none_is_written_where_nobody_wants_it(inline_runs):
    options = ["trainer.max_steps=3", "cluster.node_usage_seconds=0"]
    inline_runs.train("silent", *options, inline=True)
    assert not RunFolder(inline_runs.folder / "silent").nodes.exists()
