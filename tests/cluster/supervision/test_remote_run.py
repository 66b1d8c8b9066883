"""A run in an object store: the uploads for which its supervisor waits."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from cluster.errors import RankLostError
from cluster.supervision import owned_run
from cluster.supervision.owned_run import RemoteRun

SILENT = RayTaskError("upload_changes", "", OSError("503"))


class Nodes:
    """Nodes "a", with rank 0, and "b", which answer when a test says so, and the run's mirror."""

    def __init__(self):
        self.answers = {}
        self.mirror = MagicMock(url="s3://bucket/run", number=7, unavailable=set())
        self.supply = MagicMock()
        self.supply.separate_nodes.side_effect = set
        self.supply.pull_run.return_value = ({"a", "b"}, [])
        self.supply.upload_changes.side_effect = lambda node, *arguments: node
        self.remote = RemoteRun(self.mirror, self.supply)

    def prepare(self):
        return self.remote.prepare_nodes(["a", "b"], Path("work"))

    def wait(self, answers, timeout):
        return [answer for answer in answers if answer in self.answers], []

    def get(self, answer, timeout):
        if isinstance(result := self.answers.pop(answer), Exception):
            raise result
        return result

    def complete(self, step):
        self.remote.publish("folder", SimpleNamespace(step=step), None)

    def answer(self, **answers):
        """Answer pending requests, and return the steps that have been published so far."""
        self.answers |= {"a": ({}, {}), "b": ({}, {})} | answers
        self.remote.poll()
        return [call.args[1].step for call in self.mirror.publish.call_args_list]


@pytest.fixture
def nodes(monkeypatch):
    nodes = Nodes()
    monkeypatch.setattr(owned_run, "ray", nodes)
    monkeypatch.setattr(owned_run, "COLLECT_SECONDS", 0.0)
    return nodes


@pytest.mark.parametrize("must_stop", [True, False])
def test_a_run_that_must_stop_does_not_wait_for_the_object_store(nodes, must_stop):
    nodes.mirror.flush.return_value = False
    nodes.supply.give_up.return_value = must_stop
    if must_stop:
        assert nodes.prepare() == []
    else:
        with pytest.raises(RankLostError, match="s3://bucket/run has not received"):
            nodes.prepare()


def test_a_checkpoint_is_published_after_a_collection_that_began_after_it(nodes):
    nodes.prepare()
    nodes.remote.poll()
    nodes.complete(10)
    assert nodes.answer() == []  # this collection began earlier and may lack the last steps
    assert nodes.answer(a=SILENT) == []
    assert "503" in nodes.mirror.tell_once.call_args.args[1]
    assert nodes.answer() == [10]
    requests = [call.args for call in nodes.supply.upload_changes.call_args_list]
    of_nodes = {"a": owned_run.RANK_FILES, "b": owned_run.SHARED_RANK_FILES}
    assert all(request == (request[0], of_nodes[request[0]], 7, set()) for request in requests)
    assert len(requests) == 6


def test_a_checkpoint_whose_record_is_lost_with_its_node_is_not_published(nodes, monkeypatch):
    monkeypatch.setattr(owned_run, "LAST_COLLECTION_SECONDS", 0.0)
    nodes.prepare()
    nodes.remote.poll()
    nodes.complete(10)
    assert nodes.answer(a=ActorDiedError()) == []
    nodes.remote.collect_finally()
    assert nodes.answer() == []


def test_the_last_collection_begins_after_the_ranks_have_ended(nodes, monkeypatch):
    nodes.prepare()
    nodes.remote.poll()
    nodes.complete(10)
    monkeypatch.setattr(owned_run.time, "sleep", lambda seconds: nodes.answer())
    nodes.remote.collect_finally()
    assert nodes.answer() == [10]
