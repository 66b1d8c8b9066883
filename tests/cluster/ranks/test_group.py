"""The start of a group of ranks, their reports, and how the group ends."""

import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError
from support.cluster.processes import wait_until
from support.cluster.scripted_cluster import HandClock
from support.cluster.scripted_ray import DEAD, Answer, ScriptedActor, ScriptedRay, pending

from cluster.config import ClusterConfig, DeadlinesConfig
from cluster.errors import RankHungError, RankLostError
from cluster.health.failures import RankDiedError
from cluster.health.hang_detector import Position
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks import agent_client
from cluster.ranks import group as rank_group
from cluster.ranks.group import LAST_REPORTS_SECONDS, WAIT_FOR_CAUSE_SECONDS, RankGroup
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.reports import Notice, ReportBatch
from cluster.ray.session import ray_session
from trainer.errors import NonFiniteLossError

NAMES = ["Rank 0 on node a", "Rank 1 on node a"]
SAID = Notice("the last thing")
NOTHING = ReportBatch(0, [], 0.0)
SILENT_SECONDS = 3.0  # the other ranks answer within this time


def rank_that(error: Exception | None, silent: bool) -> Any:
    """Return an actor whose training returns or fails, and which then reports SAID."""

    @ray.remote(num_cpus=0, concurrency_groups={"control": 1, "reports": 1})
    class Rank:  # defined here, so that Ray sends the class: its processes cannot import tests
        def train(self) -> str:
            if error:
                raise error
            return "finished"

        @ray.method(concurrency_group="reports")
        def poll(self, received: int, seconds: float) -> ReportBatch:
            if silent:
                time.sleep(600)  # longer than the actor lives
            return ReportBatch(received, [(0.0, SAID)][received:], 0.0)

    return Rank.remote()


@pytest.fixture
def group(ray_head, monkeypatch):
    """Return a function that makes a group of ranks that returned (None) or failed with these
    errors.

    The rank `silent` does not answer polls.
    """
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


def test_the_last_reports_are_received_with_an_error_that_ends_the_run(group):
    error = NonFiniteLossError("3 steps in a row")
    poll = group(error, error).poll()
    assert isinstance(poll.failure, NonFiniteLossError)
    assert sorted(rank for rank, report in poll.reports if report == SAID) == [0, 1]


def test_a_silent_rank_does_not_hide_the_error_of_the_run(group):
    error = NonFiniteLossError("3 steps in a row")
    poll = group(error, error, silent=0).poll()
    assert isinstance(poll.failure, NonFiniteLossError)
    assert [rank for rank, report in poll.reports if report == SAID] == [1]


def test_a_rank_that_does_not_send_its_last_reports_is_reported(group):
    poll = group(None, None, silent=1).poll()
    assert isinstance(poll.failure, RankLostError)
    assert str(poll.failure).startswith("Rank 1 on node a has finished training, but has not sent")
    assert poll.outcomes is None


def test_ranks_that_have_returned_give_the_outcomes(group):
    poll = group(None, None).poll()
    assert poll.failure is None
    assert poll.outcomes == ["finished", "finished"]


def unanswered() -> Any:
    """Return a reference to an answer that does not arrive."""

    @ray.remote(num_cpus=0)
    def never() -> None:  # defined here, so that Ray sends the function
        time.sleep(600)

    return never.remote()


class StartingRank:
    """Stand-in for the handle of a rank, with the arguments that the rank received."""

    def __init__(self, answer: Any) -> None:
        self.told: list[Any] = []
        self.rendezvous = SimpleNamespace(remote=lambda one_node: answer)
        self.use_workers = SimpleNamespace(remote=self.told.append)
        self.train = SimpleNamespace(remote=self._train)

    def _train(self, *arguments: Any) -> Any:
        self.told.append(arguments)
        return unanswered()


def starting(nodes: str, answer: Any, config: ClusterConfig, clock: Any) -> RankGroup:
    """Return a group of ranks on these nodes, whose processes have started."""
    processes = [
        SimpleNamespace(
            actor=StartingRank(answer),
            rank_bundle=SimpleNamespace(node=node),
            name_answer=ray.put("name"),
            name=None,
        )
        for node in nodes
    ]
    agents = {node: f"agent of {node}" for node in nodes}
    names = [f"Rank {n}" for n in range(len(nodes))]
    return RankGroup(config, processes, names, clock, agents=agents)


def test_ranks_get_their_place_in_the_group_and_on_their_node(ray_head):
    with ray_session(ray_head.address):
        config = ClusterConfig(ranks=3, cpus_per_rank=2)
        group = starting("aab", ray.put("tcp://here:1"), config, HandClock())
        group.start("the job", ["a worker"])
        assert group.poll().failure is None
        assert not group.is_training
        assert group.poll().failure is None  # now the rendezvous has answered
        assert group.is_training
        for result in group._results:
            ray.cancel(result, force=True)
    found = []
    for actor in group.actors:
        workers, (job, place, told, agent) = actor.told
        assert (workers, job, told) == (["a worker"], "the job", config)
        assert (place.world_size, place.device, place.threads) == (3, "cpu", 2)
        assert place.rendezvous == "tcp://here:1"
        found.append((place.rank, place.local_rank, place.local_world_size, agent))
    # A rank that is alone on its node requests layouts without an agent.
    assert found == [(0, 0, 2, "agent of a"), (1, 1, 2, "agent of a"), (2, 0, 1, None)]


def test_the_deadline_of_the_rendezvous_starts_after_the_processes_have_started(ray_head):
    with ray_session(ray_head.address):
        answer = unanswered()
        config = ClusterConfig(deadlines=DeadlinesConfig(start_seconds=600, answer_seconds=60))
        clock = HandClock()
        group = starting("a", answer, config, clock)
        clock.now = 500.0
        assert group.poll().failure is None  # the start is over: the rendezvous is requested
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
def test_local_ranks_are_numbered_on_each_node(nodes, expected):
    assert rank_group.local_ranks_of(list(nodes)) == expected


class GroupStory:
    """Group of ranks on nodes, whose actors answer by a script, and its clock."""

    def __init__(self, monkeypatch, nodes="ab", **config):
        self.ray = ScriptedRay()
        for module in (rank_group, agent_client):
            monkeypatch.setattr(module, "ray", self.ray)
        self.pauses = []
        clock = SimpleNamespace(sleep=self.pauses.append, monotonic=lambda: 1000.0)
        monkeypatch.setattr(rank_group, "time", clock)
        self.clock = HandClock()
        self.started = [pending() for _ in nodes]
        self.rendezvous = pending()
        self.results = [pending() for _ in nodes]
        self.actors = [
            ScriptedActor(rendezvous=[self.rendezvous], train=[result]) for result in self.results
        ]
        self.processes = [
            SimpleNamespace(
                actor=actor,
                rank_bundle=SimpleNamespace(node=node),
                name_answer=started,
                name=ProcessName(node, rank, 1),
            )
            for rank, (actor, node, started) in enumerate(
                zip(self.actors, nodes, self.started, strict=True)
            )
        ]
        names = [f"Rank {rank}" for rank in range(len(nodes))]
        self.agents = {node: ScriptedActor() for node in nodes}
        self.group = RankGroup(
            ClusterConfig(**config), self.processes, names, self.clock, agents=self.agents
        )
        self.group.start("the job", ["a worker"])

    def begin(self):
        """Complete the start, so that the ranks train."""
        for answer in (*self.started, self.rendezvous):
            answer.come("name")
        for _ in range(2):
            assert self.group.poll().failure is None
        assert self.group.is_training

    def reports(self, rank, *reports):
        """Answer the rank's pending poll with these reports."""
        self.group._polls[rank].come(self.batch(rank, *reports))

    def batch(self, rank, *reports):
        """Return a batch of these reports, numbered after those already received."""
        first = self.group._received[rank].end
        return ReportBatch(first, [(0.0, report) for report in reports], 0.0)


@pytest.fixture
def story(monkeypatch):
    return partial(GroupStory, monkeypatch)


@pytest.fixture
def told(story):
    return story()


@pytest.mark.parametrize(("nodes", "one_node"), [("aa", True), ("ab", False)])
def test_the_first_rank_makes_the_rendezvous_after_all_ranks_have_started(story, nodes, one_node):
    told = story(nodes)
    told.started[0].come("name")
    assert told.group.poll().failure is None
    assert told.actors[0].calls["rendezvous"] == []
    told.started[1].come("name")
    told.group.poll()
    told.group.poll()
    assert told.actors[0].calls["rendezvous"] == [(one_node,)]
    assert told.actors[1].calls["rendezvous"] == []
    assert not told.group.is_training
    told.rendezvous.come("tcp://here:1")
    told.group.poll()
    assert told.group.is_training
    for actor in told.actors:
        ((_, placement, _, _),) = actor.calls["train"]
        assert placement.rendezvous == "tcp://here:1"


@pytest.mark.parametrize("late", [0, 1])
def test_a_rank_that_does_not_start_in_time_is_reported(story, late):
    told = story(deadlines={"start_seconds": 50.0, "answer_seconds": 7.0})
    told.started[1 - late].come("name")
    told.clock.now = 49.9
    assert told.group.poll().failure is None
    told.clock.now = 50.0
    failure = told.group.poll().failure
    assert isinstance(failure, RankHungError)
    assert f"Rank {late} has not started within 50 s. If" in str(failure)


def test_a_rank_that_dies_before_it_trains_is_reported(told):
    told.started[0].come("name")
    told.started[1].come(DEAD)
    failure = told.group.poll().failure
    assert isinstance(failure, RankDiedError)
    assert str(failure).startswith("Rank 1 has died in phase start")


@pytest.mark.parametrize("gpus", [0, 1])
def test_ranks_get_the_device_and_threads_of_the_recipe(story, gpus):
    told = story(gpus_per_rank=gpus, cpus_per_rank=3)
    told.begin()
    for actor in told.actors:
        ((job, placement, config, _),) = actor.calls["train"]
        assert (job, placement.device) == ("the job", "cuda" if gpus else "cpu")
        assert (placement.threads, config.gpus_per_rank) == (3, gpus)


def test_waiting_for_the_start_ends_with_the_first_answer(told):
    told.started[1].come("name")
    told.group.wait(0.1)
    assert (told.ray.waits, told.pauses) == ([0.1], [])  # it waited only for rank 0
    told.started[0].come("name")
    told.group.wait(0.2)
    assert (told.ray.waits, told.pauses) == ([0.1], [])  # no wait: `poll` can start the next stage


def test_the_group_pauses_between_polls_if_all_ranks_have_failed(told):
    told.begin()
    for result in told.results:
        result.come(DEAD)
    told.group.wait(0.2)
    assert told.pauses == [0.2]


def test_waiting_ends_when_an_agent_reports_a_death(told):
    told.begin()
    told.group.poll()
    for agent in told.agents.values():
        assert len(agent.calls["dead_processes"]) == 1
    told.group.wait(0.2)
    assert (told.ray.waits, told.pauses) == ([0.2], [])
    told.group._death_watch.pending[1].come([told.processes[1].name])
    told.group.wait(0.2)
    assert (told.ray.waits, told.pauses) == ([0.2], [])  # without waiting for node a
    failure = told.group.poll().failure
    assert isinstance(failure, RankDiedError)
    assert str(failure) == "Rank 1 has died in phase start: its process has ended"
    assert told.ray.waits == [0.2, rank_group.DEATH_ACCOUNT_SECONDS]


def test_the_cause_that_ray_reports_of_a_death_is_kept(told):
    told.begin()
    told.group.poll()
    told.group._death_watch.pending[1].come([told.processes[1].name])
    told.results[1].come(DEAD)
    failure = told.group.poll().failure
    assert isinstance(failure, RankDiedError)
    assert "its process has ended" not in str(failure)
    assert told.ray.waits == []


def test_the_death_of_a_rank_that_has_returned_is_no_failure(told):
    told.begin()
    told.group.poll()
    told.results[1].come("finished")
    told.group._death_watch.pending[1].come([told.processes[1].name])
    assert told.group.poll().failure is None
    assert told.ray.waits == []


def test_reports_are_received_with_their_rank_and_the_rank_is_polled_again(told):
    told.begin()
    told.group.poll()
    first, second = Notice("one"), Notice("two")
    told.reports(1, first, second)
    assert told.group.poll().reports == [(1, first), (1, second)]
    assert [len(actor.calls["poll"]) for actor in told.actors] == [1, 2]
    assert told.group.poll().reports == []  # each report is returned once
    assert told.actors[1].calls["poll"] == [(0, 1.0), (2, 1.0)]


def test_a_failed_poll_is_repeated_after_a_pause(told):
    """The rank's process may still live, for example after an interrupted connection."""
    told.begin()
    told.group.poll()
    told.group._polls[1].come(DEAD)
    for now, requests in ((0.5, 1), (1.0, 1), (1.5, 2)):
        told.clock.now = now
        assert told.group.poll().failure is None
        assert len(told.actors[1].calls["poll"]) == requests
    told.reports(1, SAID)
    assert told.group.poll().reports == [(1, SAID)]


@pytest.mark.parametrize(
    ("ranks", "answer_seconds", "expected"),
    [(1, 30, 1.0), (320, 30, 1.0), (1024, 30, 3.2), (64, 3, 1.0), (64, 1.5, 0.5), (1024, 6, 2.0)],
)
def test_the_interval_of_answers_grows_with_the_ranks_up_to_a_third_of_the_deadline(
    ranks, answer_seconds, expected
):
    deadlines = DeadlinesConfig(answer_seconds=answer_seconds)
    assert rank_group.answer_interval(ranks, deadlines) == pytest.approx(expected)


def test_the_time_of_a_poll_is_recorded_as_a_heartbeat(told):
    told.begin()
    assert not hasattr(told.processes[0], "polled_at")
    told.group.poll()
    assert [process.polled_at for process in told.processes] == [1000.0, 1000.0]


def test_the_number_of_requests_to_ray_does_not_grow_with_the_ranks(story):
    requests = []
    for ranks in (2, 32):
        told = story("a" * ranks)
        told.begin()
        told.group.poll()
        for rank in range(ranks):
            told.reports(rank, SAID)
        before = told.ray.requests
        told.group.wait(0.1)
        poll = told.group.poll()
        requests.append(told.ray.requests - before)
        assert poll.reports == [(rank, SAID) for rank in range(ranks)]
    assert requests[0] == requests[1]


def test_a_dead_rank_does_not_hide_the_reports_of_other_ranks(story):
    told = story("abcd")
    told.begin()
    told.group.poll()
    for rank in (0, 3):
        told.reports(rank, SAID)
    told.group._polls[1].come(DEAD)
    poll = told.group.poll()
    assert (poll.reports, poll.failure) == ([(0, SAID), (3, SAID)], None)
    told.results[0].come("finished")
    told.results[1].come(DEAD)
    told.results[3].come("finished")
    assert "Rank 1 has died" in str(told.group.poll().failure)


def is_dead(actor):
    try:
        ray.get(actor.poll.remote(0, 0.0))
    except RayActorError:
        return True
    return False


def test_a_killed_rank_among_many_is_reported(ray_head):
    with ray_session(ray_head.address):
        actors = [rank_that(None, silent=False) for _ in range(4)]
        processes = [SimpleNamespace(actor=actor) for actor in actors]
        names = [f"Rank {rank}" for rank in range(4)]
        group = RankGroup(ClusterConfig(), processes, names, SuspendAwareClock())
        group._results = [actor.train.remote() for actor in actors]
        ray.wait(group._results, num_returns=4)
        ray.kill(actors[2])
        wait_until(lambda: is_dead(actors[2]))  # the actor may answer until then
        group._results[2] = actors[2].train.remote()
        group._polls = {rank: actor.poll.remote(0, 0.0) for rank, actor in enumerate(actors)}
        ray.wait([*group._results, *group._polls.values()], num_returns=8)
        poll = group.poll()
    assert isinstance(poll.failure, RankDiedError)
    assert str(poll.failure).startswith("Rank 2 has died")
    assert poll.reports == [(0, SAID), (1, SAID), (3, SAID)]


def test_heartbeats_are_positions_and_seconds_of_silence(told):
    told.begin()
    told.clock.now = 10.0
    told.group.poll()
    told.reports(0, Position("step", 3, "here"), Position("validation", 3))
    told.group.poll()
    told.clock.now = 14.0
    (position, silent), (start, other_silent) = told.group.heartbeats()
    assert (position, silent) == (Position("validation", 3), 4.0)
    assert (start, other_silent) == (Position(), 14.0)


def test_a_rank_that_stops_answering_is_reported_as_hung(story):
    told = story(deadlines={"answer_seconds": 7.0})
    told.begin()
    told.group.poll()
    for now in (5.0, 7.0, 8.1):
        told.clock.now = now
        told.reports(0)
        poll = told.group.poll()
        assert bool(poll.failure) == (now > 7.0)
    assert "Rank 1 has not answered for 7 s" in str(poll.failure)


def test_a_rank_that_has_returned_has_no_deadline(story):
    told = story(deadlines={"start_seconds": 5.0, "step_seconds": 50.0})
    told.begin()
    told.group.poll()
    told.reports(0, Position("step", 1))
    told.group.poll()
    told.results[1].come("finished")
    told.clock.now = 6.0
    assert told.group.poll().failure is None


def test_outcomes_are_returned_when_all_ranks_have_sent_their_last_reports(told):
    told.begin()
    told.group.poll()
    told.results[1].come("stopped")
    poll = told.group.poll()
    assert (poll.outcomes, poll.failure) == (None, None)
    told.results[0].come("finished")
    under_way, last = Notice("under way"), Notice("last")
    told.reports(0, under_way)
    told.reports(1)
    for rank, actor in enumerate(told.actors):
        batch = told.batch(rank, under_way, last) if rank == 0 else NOTHING
        actor.answers["poll"] = [Answer(NOTHING), Answer(batch)]
    poll = told.group.poll()
    assert poll.reports == [(0, under_way), (0, last)]
    assert (poll.outcomes, poll.failure) == (["finished", "stopped"], None)


def test_received_reports_are_kept_if_the_last_poll_gets_no_answer(told):
    told.begin()
    told.group.poll()
    under_way = Notice("under way")
    for rank, actor in enumerate(told.actors):
        told.results[rank].come("finished")
        told.reports(rank)
        actor.answers["poll"] = [Answer(NOTHING), Answer(NOTHING)]
    told.actors[0].answers["poll"] = [Answer(told.batch(0, under_way)), pending()]
    poll = told.group.poll()
    assert poll.reports == [(0, under_way)]
    assert isinstance(poll.failure, RankLostError)


def test_a_rank_that_dies_before_its_last_reports_is_a_failure(told):
    told.begin()
    told.group.poll()
    for rank, actor in enumerate(told.actors):
        told.results[rank].come("finished")
        told.reports(rank)
        actor.answers["poll"] = [Answer(NOTHING), Answer(DEAD if rank else NOTHING)]
    poll = told.group.poll()
    assert poll.outcomes is None
    assert "Rank 1 has died" in str(poll.failure)


def test_a_failure_that_may_be_a_consequence_waits_for_the_cause(told):
    """A collective fails shortly before the death of another rank is known."""
    told.begin()
    told.clock.now = 20.0
    told.results[0].come(failed_with(RuntimeError("connection closed by peer")))
    assert told.group.poll().failure is None
    told.clock.now += WAIT_FOR_CAUSE_SECONDS
    assert told.group.poll().failure is None
    told.results[1].come(DEAD)
    assert "Rank 1 has died" in str(told.group.poll().failure)


def test_without_another_cause_the_first_failure_is_reported_after_a_wait(told):
    told.begin()
    told.clock.now = 20.0
    told.results[1].come(failed_with(RuntimeError("connection closed by peer")))
    assert told.group.poll().failure is None
    told.clock.now += WAIT_FOR_CAUSE_SECONDS + 0.1
    failure = told.group.poll().failure
    assert str(failure).startswith("Rank 1 has failed in phase start: RuntimeError: connection")
    assert all(len(actor.calls["poll"]) <= 2 for actor in told.actors)  # no polls for last reports


def test_stop_requests_and_data_workers_are_sent_to_every_rank(told):
    told.group.request_stop()
    told.group.use_workers(["another"])
    for actor in told.actors:
        assert len(actor.calls["request_stop"]) == 1
        assert actor.calls["use_workers"] == [(["a worker"],), (["another"],)]


def failed_with(cause):
    """Return the error that Ray raises for an exception in an actor's method."""
    return RayTaskError("train", "the traceback on its node", cause)


@pytest.mark.parametrize("fails", [False, True])
def test_last_reports_get_less_time_after_an_error_that_ends_the_run(story, fails):
    """Without an error, the limit is the deadline for answers."""
    told = story(deadlines={"answer_seconds": 7.0})
    told.begin()
    told.group.poll()
    for result in told.results:
        result.come(failed_with(NonFiniteLossError("NaN")) if fails else "finished")
    told.reports(0, SAID)
    told.actors[0].answers["poll"] = [Answer(NOTHING), Answer(NOTHING)]
    poll = told.group.poll()
    assert poll.reports == [(0, SAID)]
    assert told.ray.waits == [LAST_REPORTS_SECONDS if fails else 7.0]
    if fails:
        assert isinstance(poll.failure, NonFiniteLossError)
    else:
        late = "Rank 1 has finished training, but has not sent its last reports within 7 s"
        assert late in str(poll.failure)
