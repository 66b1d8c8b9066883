"""When an attempt is not begun, is given up, or has so long to leave."""

import math
from types import SimpleNamespace

import pytest

from cluster.config import ClusterConfig
from cluster.errors import ClusterError, RankHungError, RankLostError
from cluster.health.suspend_aware_clock import SuspendAwareClock
from cluster.ranks.group import Poll
from cluster.ranks.pool import RankSupply
from cluster.ray.cluster_view import Node
from cluster.supervision import attempt as attempt_module
from cluster.supervision.attempt import Attempt
from cluster.supervision.restart_loop import RestartLoop
from cluster.supervision.stop_requests import StopRequests
from trainer.runs.folder import RunFolder

LACKS = "Node b does not have the run's folder /runs/x. Share it, with --run PATH"


class Heard:
    """An audience."""

    def __init__(self):
        self.notices, self.kept = [], []

    def notice(self, text):
        self.notices.append(text)

    def keep(self, text):
        self.kept.append(text)


class Group:
    """Ranks of which nothing is heard."""

    nodes = ("a",)

    def __init__(self, trains):
        self.trains = trains
        self.polls = 0

    def wait(self, seconds):
        pass

    def poll(self):
        self.polls += 1
        return Poll([])

    def request_stop(self):
        self.asked = True


def node(name, cpus=1.0, leaves_at=None):
    return Node(name, f"node {name}", {"CPU": cpus}, {"CPU": 4.0}, leaves_at)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def context(run):
    """What a supervisor has on a cluster of two nodes, as far as it is asked for here."""
    config = ClusterConfig(ranks={"min": 1, "max": 2}, grace_seconds=30)
    with StopRequests(run) as stop:
        yield SimpleNamespace(
            config=config,
            run=run,
            stop=stop,
            audience=Heard(),
            clock=SuspendAwareClock(),
            lease=SimpleNamespace(check=lambda: None),
            workers=SimpleNamespace(handles=[], admit=lambda: None),
            supply=RankSupply(config, SuspendAwareClock()),
            view=SimpleNamespace(fresh_nodes=lambda: {"a": node("a"), "b": node("b")}),
            leaving_nodes=lambda used: [],
            lost_nodes=lambda used: set(),
        )


def attempt_of(context, trains):
    return Attempt(context, Group(trains), SimpleNamespace(), furthest_step=0)


def test_ranks_that_have_not_begun_are_not_waited_for(context, run):
    run.ask_to_stop()
    attempt = attempt_of(context, trains=False)
    assert attempt.run() == "preempted"
    assert attempt._group.polls == 1
    assert context.audience.notices[0].endswith(
        "was created: the ranks leave before they have begun"
    )


@pytest.mark.parametrize("error", [RankHungError("Rank 1 hangs"), RankLostError("Rank 1 died")])
def test_where_ranks_stood_is_kept_and_named_if_one_hangs(context, run, error):
    context.supply = SimpleNamespace(stacks=lambda: {0: "waits", 1: "loops"})
    attempt = attempt_of(context, trains=True)
    attempt._group.poll = lambda: Poll([], failure=error)
    with pytest.raises(RankLostError, match=f"^{error}") as raised:
        attempt.run()
    if not isinstance(error, RankHungError):
        assert raised.value is error
        assert not run.stacks.exists()
        return
    (folder,) = run.stacks.iterdir()
    assert str(raised.value) == f"Rank 1 hangs. Where each rank stood is in {folder}"
    assert (folder / "rank-1.txt").read_text() == "loops"


def test_the_time_to_leave_counts_from_the_request(context, run, monkeypatch):
    run.ask_to_stop()
    assert context.stop.reason
    later = context.stop.asked_at + 30.0  # a checkpoint was verified until then, say
    monkeypatch.setattr(attempt_module, "time", SimpleNamespace(monotonic=lambda: later))
    attempt = attempt_of(context, trains=True)
    assert attempt.run() == "preempted"
    assert attempt._group.polls <= 2
    assert "have not left in time" in context.audience.notices[-1]


@pytest.mark.parametrize(
    ("leaves_in", "seconds"), [(20.0, 15.0), (3.0, 0.0), (1000.0, 60.0), (math.inf, 60.0)]
)
def test_ranks_on_a_node_that_is_drained_leave_before_it_does(
    context, monkeypatch, leaves_in, seconds
):
    context.config = ClusterConfig(grace_seconds=60)
    monkeypatch.setattr(attempt_module, "time", SimpleNamespace(time=lambda: 1000.0))
    context.leaving_nodes = lambda used: [node("a", leaves_at=1000.0 + leaves_in)]
    attempt = attempt_of(context, trains=True)
    attempt._ask_to_leave(now=100.0)
    assert attempt._leave_by == 100.0 + seconds
    assert attempt.nodes_leave


def test_wanted_data_workers_are_not_looked_for_at_every_poll(context):
    looked = []
    context.run = SimpleNamespace(take_wanted_data_workers=lambda: looked.append("now"))
    attempt = attempt_of(context, trains=True)
    for tenth in range(20):
        attempt._scale_workers(now=tenth / 10)
    assert len(looked) == 4


def attempts_of(context):
    return RestartLoop(None, None, context)


def test_a_node_without_the_runs_folder_gets_no_ranks(context):
    nodes = context.view.fresh_nodes()
    assert context.supply.offer(nodes) == ["a", "b"]
    context.supply._agents.unfit.add("b")
    assert context.supply.offer(nodes) == ["a"]
    attempts_of(context)._do_without([LACKS])
    assert context.audience.notices == [f"{LACKS}. In this session the run does without this node"]


def test_without_room_elsewhere_the_run_ends_and_names_the_node(context):
    context.config = ClusterConfig(ranks=2)
    context.supply._agents.unfit.add("b")
    with pytest.raises(ClusterError, match="Node b does not have"):
        attempts_of(context)._do_without([LACKS])


def test_the_traceback_of_every_lost_rank_is_kept(context):
    attempts = attempts_of(context)
    error = RankLostError("Rank 1 has failed: RuntimeError: x")
    error.__cause__ = RuntimeError("Traceback of the rank")
    attempts._take_loss(error)
    assert context.audience.notices == [f"{error}; restart 1 of this session"]
    assert context.audience.kept == ["Traceback of the rank"]


def attempts_on(context, nodes):
    """After an attempt with ranks on these nodes."""
    attempts = attempts_of(context)
    attempts._nodes = {name: f"node {name}" for name in nodes}
    return attempts


LOSS = RankLostError("Rank 1 has died")


def test_losses_of_nodes_are_no_failures_of_the_run(context):
    attempts = attempts_on(context, "abcdef")
    for name in "abcdef":
        context.lost_nodes = lambda used, name=name: {name}
        attempts._take_loss(LOSS)
    assert context.audience.notices[5] == (
        "Rank 1 has died; node node f is lost, which is no failure of the run; restart 6 of this "
        "session"
    )
    context.lost_nodes = lambda used: set()
    attempts._take_loss(LOSS)
    attempts._take_loss(LOSS)
    with pytest.raises(RankLostError, match="no further than step 0 in 3 attempts"):
        attempts._take_loss(LOSS)


def test_a_node_is_lost_once(context):
    """One that comes back and fails again, again and again, does not keep the run busy for ever."""
    attempts = attempts_on(context, "ab")
    context.lost_nodes = lambda used: {"b"}
    for _ in range(3):
        attempts._take_loss(LOSS)
    assert sum("is lost" in notice for notice in context.audience.notices) == 1
    with pytest.raises(RankLostError, match="in 3 attempts"):
        attempts._take_loss(LOSS)


def test_a_lost_node_forgives_no_failure_before_it(context):
    attempts = attempts_on(context, "ab")
    attempts._take_loss(LOSS)
    attempts._take_loss(LOSS)
    context.lost_nodes = lambda used: {"b"}
    attempts._take_loss(LOSS)
    context.lost_nodes = lambda used: set()
    with pytest.raises(RankLostError, match="in 3 attempts"):
        attempts._take_loss(LOSS)


def test_what_the_cluster_has_is_said_when_room_was_waited_for_in_vain(context):
    context.config = ClusterConfig(ranks=3, wait_for_ranks_seconds=0)
    with pytest.raises(
        ClusterError,
        match=r"room for 2 ranks, and the run needs at least 3.* has 8 CPUs and 0 GPUs in all",
    ):
        attempts_of(context)._wait_for_group()
