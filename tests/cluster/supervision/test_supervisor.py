"""A Ray of the run's own that is lost, or does not come up: started anew, but not for ever."""

import itertools
from contextlib import nullcontext

import pytest
from support.recipes import tiny_recipe
from support.records.lines import train_line

from cluster.config import ClusterConfig
from cluster.errors import EmbeddedRayError
from cluster.ray.private import machine_cpus
from cluster.supervision import supervisor
from cluster.supervision.run_checks import check_run
from cluster.supervision.supervisor import supervise
from trainer.runs.folder import RunFolder


class Heard:
    """An audience."""

    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)

    def vitals(self, vitals):
        pass

    def logging(self):
        return nullcontext()


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def train(phrasebook, folder, monkeypatch):
    """Supervises a run whose sessions of Ray are calls of a function."""
    recipe = tiny_recipe(phrasebook)

    def start(session):
        heard = Heard()
        monkeypatch.setattr(supervisor, "_train_in_session", lambda *_: session())
        return supervise(recipe, folder, *check_run(recipe, folder), heard, None), heard.notices

    return start


def test_five_sessions_without_progress_end_the_run(train):
    sessions = []

    def lose():
        sessions.append("lost")
        raise EmbeddedRayError("raylet has ended")

    with pytest.raises(
        EmbeddedRayError, match=r"raylet has ended.* no further than step 0 in 5 sessions of Ray"
    ):
        train(lose)
    assert len(sessions) == 5


def test_a_run_that_gets_further_may_lose_its_ray_as_often_as_it_likes(train, folder):
    steps = itertools.count(1)

    def lose():
        step = next(steps)
        if step == 10:
            return "preempted"
        with folder.metrics.open("a") as record:
            print(train_line(step).to_json(), file=record)
        raise EmbeddedRayError("raylet has ended")

    outcome, notices = train(lose)
    assert outcome == "preempted"
    assert notices == ["raylet has ended; Ray is started anew"] * 9


def test_a_request_to_stop_is_obeyed_between_two_sessions(train, folder):
    sessions = []

    def lose():
        sessions.append("lost")
        folder.ask_to_stop()
        raise EmbeddedRayError("raylet has ended")

    outcome, notices = train(lose)
    assert outcome == "preempted"
    assert len(sessions) == 1
    assert "was created: the run leaves" in notices[-1]


def test_ranks_beyond_the_cores_are_warned_of(folder):
    heard = Heard()
    there = machine_cpus()
    supervisor._embedded_ray(ClusterConfig(ranks=there), heard)
    assert heard.notices == []
    wanted = supervisor._embedded_ray(ClusterConfig(ranks=there + 2), heard)
    assert wanted.cpus == there + 2
    assert f"{there + 2} ranks" in heard.notices[0]
    assert f"share the {there} of this machine" in heard.notices[0]
    supervisor._embedded_ray(ClusterConfig(ranks=there + 2, address="auto"), heard)
    assert len(heard.notices) == 1  # on a cluster nodes may come


def test_labels_and_resources_count_on_a_cluster_only():
    heard = Heard()
    config = ClusterConfig(node_labels={"pool": "train"}, resources_per_rank={"rack": 1})
    joined = config.model_copy(update={"address": "10.0.0.1:6379"})
    assert supervisor._on_this_machine(joined, heard) is joined
    assert heard.notices == []
    here = supervisor._on_this_machine(config, heard)
    assert (here.node_labels, here.resources_of_a_rank) == ({}, {"CPU": 1.0})
    assert heard.notices == [
        "cluster.node_labels (pool train) and cluster.resources_per_rank (rack 1.0) count on a "
        "cluster only: this run is on one machine alone"
    ]
