"""The start of a group, and the last reports of its ranks."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from support.cluster.scripted_cluster import HandClock

from cluster.config import ClusterConfig, DeadlinesConfig
from cluster.errors import RankHungError, RankLostError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks import group as rank_group
from cluster.ranks.group import RankGroup
from cluster.ranks.reports import Notice, Report
from cluster.ray.session import ray_session
from trainer.errors import NonFiniteLossError

NAMES = ["Rank 0 on node a", "Rank 1 on node a"]
SAID = Notice("the last thing")
SILENT_SECONDS = 3.0  # the others answer meanwhile


def rank_that(error: Exception | None, silent: bool) -> Any:
    """An actor that returns or fails when it trains, and is asked afterwards what it did."""

    @ray.remote(num_cpus=0, concurrency_groups={"control": 1})
    class Rank:  # here, so that Ray sends the class itself: its processes know no tests
        def __init__(self) -> None:
            self._reports = [SAID]

        def train(self) -> str:
            if error:
                raise error
            return "finished"

        @ray.method(concurrency_group="control")
        def poll(self) -> list[Report]:
            if silent:
                time.sleep(600)  # the actor does not live so long
            reports, self._reports = self._reports, []
            return reports

    return Rank.remote()


@pytest.fixture
def group(ray_head, monkeypatch):
    """Makes one of ranks that have returned or failed with these errors; silent: one rank."""
    with ray_session(ray_head.address):

        def make(*errors, silent=None):
            seconds = 60.0 if silent is None else SILENT_SECONDS
            monkeypatch.setattr(rank_group, "LAST_REPORTS_SECONDS", seconds)
            config = ClusterConfig(deadlines=DeadlinesConfig(answer_seconds=seconds))
            actors = [rank_that(error, rank == silent) for rank, error in enumerate(errors)]
            processes = [SimpleNamespace(actor=actor) for actor in actors]
            group = RankGroup(config, processes, NAMES, SuspendAwareClock())
            group._results = [actor.train.remote() for actor in actors]
            ray.wait(group._results, num_returns=len(actors))
            return group

        yield make


def test_the_last_reports_come_with_an_error_that_ends_the_run(group):
    error = NonFiniteLossError("3 steps in a row")
    poll = group(error, error).poll()
    assert isinstance(poll.failure, NonFiniteLossError)
    assert sorted(rank for rank, report in poll.reports if report == SAID) == [0, 1]


def test_a_silent_rank_does_not_hide_the_error(group):
    error = NonFiniteLossError("3 steps in a row")
    poll = group(error, error, silent=0).poll()
    assert isinstance(poll.failure, NonFiniteLossError)
    assert [rank for rank, report in poll.reports if report == SAID] == [1]


def test_a_rank_that_does_not_tell_what_it_did_last_is_named(group):
    poll = group(None, None, silent=1).poll()
    assert isinstance(poll.failure, RankLostError)
    assert str(poll.failure).startswith("Rank 1 on node a has returned, but has not told for 3 s")
    assert poll.outcomes is None


def test_ranks_that_have_returned_have_outcomes(group):
    poll = group(None, None).poll()
    assert poll.failure is None
    assert poll.outcomes == ["finished", "finished"]


def unanswered() -> Any:
    """An answer that does not come."""

    @ray.remote(num_cpus=0)
    def never() -> None:  # here, so that Ray sends the function itself
        time.sleep(600)

    return never.remote()


class StartingRank:
    """The supervisor's handle of a rank, with what it was told to train."""

    def __init__(self, answer: Any) -> None:
        self.told: list[Any] = []
        self.rendezvous = SimpleNamespace(remote=lambda one_node: answer)
        self.use_workers = SimpleNamespace(remote=self.told.append)
        self.train = SimpleNamespace(remote=self._train)

    def _train(self, *arguments: Any) -> Any:
        self.told.append(arguments)
        return unanswered()


def starting(nodes: str, answer: Any, config: ClusterConfig, clock: Any) -> RankGroup:
    """A group of ranks on these nodes, whose processes are there."""
    processes = [
        SimpleNamespace(
            actor=StartingRank(answer), seat=SimpleNamespace(node=node), said_name=ray.put("name")
        )
        for node in nodes
    ]
    return RankGroup(config, processes, [f"Rank {n}" for n in range(len(nodes))], clock)


def test_ranks_know_their_place_among_all_and_on_their_node(ray_head):
    with ray_session(ray_head.address):
        config = ClusterConfig(ranks=3, cpus_per_rank=2)
        group = starting("aab", ray.put("tcp://here:1"), config, HandClock())
        group.start("the job", ["a worker"])
        assert group.poll().failure is None
        assert not group.trains
        assert group.poll().failure is None  # the rendezvous has answered
        assert group.trains
        for result in group._results:
            ray.cancel(result, force=True)
    found = []
    for actor in group.actors:
        workers, (job, place, told) = actor.told
        assert (workers, job, told) == (["a worker"], "the job", config)
        assert (place.world_size, place.device, place.threads) == (3, "cpu", 2)
        assert place.rendezvous == "tcp://here:1"
        found.append((place.rank, place.local_rank, place.local_world_size))
    assert found == [(0, 0, 2), (1, 1, 2), (2, 0, 1)]


def test_the_rendezvous_has_its_own_deadline_however_long_processes_took(ray_head):
    with ray_session(ray_head.address):
        answer = unanswered()
        config = ClusterConfig(deadlines=DeadlinesConfig(start_seconds=600, answer_seconds=60))
        clock = HandClock()
        group = starting("a", answer, config, clock)
        clock.now = 500.0
        assert group.poll().failure is None  # the process is there: its rendezvous is asked for
        for clock.now in (500.0, 559.0):
            assert group.poll().failure is None
        clock.now = 561.0
        failure = group.poll().failure
        ray.cancel(answer, force=True)
    assert isinstance(failure, RankHungError)
    assert "Rank 0 has not started within 60 s" in str(failure)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [("aaa", [0, 1, 2]), ("abc", [0, 0, 0]), ("aabbb", [0, 1, 0, 1, 2]), ("abab", [0, 0, 1, 1])],
)
def test_local_ranks_count_the_ranks_of_each_node(nodes, expected):
    assert rank_group.local_ranks_of(list(nodes)) == expected
