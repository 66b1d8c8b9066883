"""A private Ray that is lost or does not start is restarted a limited number of times."""

import itertools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from support.recipes import tiny_recipe
from support.records.lines import train_line

from cluster.config import ClusterConfig
from cluster.errors import EmbeddedRayError, RankLostError
from cluster.ray.private import machine_cpus
from cluster.supervision import supervisor
from cluster.supervision.retry_budget import SESSIONS_WITHOUT_PROGRESS
from cluster.supervision.run_checks import check_run
from cluster.supervision.status_writer import StatusWriter
from cluster.supervision.supervisor import SupervisionOptions, supervise
from run_store.folder import RunFolder
from run_store.record.log import INTERRUPTED
from run_store.record.run_status import read_status
from trainer.process.host_memory import allocator_environment


class Heard:
    """Listener that records notices."""

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
    """Return a function that supervises a run whose Ray sessions are calls of a function."""
    recipe = tiny_recipe(phrasebook)

    def start(session):
        heard = Heard()
        monkeypatch.setattr(supervisor, "_train_in_session", lambda *_: session())
        options = SupervisionOptions()
        outcome = supervise(recipe, folder, *check_run(recipe, folder), heard, options)
        return outcome, heard.notices

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


def test_a_run_that_progresses_may_lose_its_ray_any_number_of_times(train, folder):
    steps = itertools.count(1)

    def lose():
        step = next(steps)
        if step == 10:
            return "stopped"
        with folder.metrics.open("a") as record:
            print(train_line(step).to_json(), file=record)
        raise EmbeddedRayError("raylet has ended")

    outcome, notices = train(lose)
    assert outcome == "stopped"
    assert notices == ["raylet has ended; restarting Ray"] * 9


def test_a_request_to_stop_is_obeyed_between_two_sessions(train, folder):
    sessions = []

    def lose():
        sessions.append("lost")
        folder.ask_to_stop()
        raise EmbeddedRayError("raylet has ended")

    outcome, notices = train(lose)
    assert outcome == "stopped"
    assert len(sessions) == 1
    assert "was created: the run leaves" in notices[-1]


def test_more_ranks_than_cores_cause_a_warning_only_on_this_machine(folder):
    heard = Heard()
    there = machine_cpus()
    supervisor._embedded_ray(ClusterConfig(ranks=there), heard)
    assert heard.notices == []
    wanted = supervisor._embedded_ray(ClusterConfig(ranks=there + 2), heard)
    assert wanted.cpus == there + 2
    assert f"{there + 2} ranks" in heard.notices[0]
    assert f"this machine has only {there}" in heard.notices[0]
    supervisor._embedded_ray(ClusterConfig(ranks=there + 2, address="auto"), heard)
    assert len(heard.notices) == 1  # nodes may join a cluster


def test_labels_and_resources_apply_only_on_a_cluster():
    heard = Heard()
    config = ClusterConfig(node_labels={"pool": "train"}, resources_per_rank={"rack": 1})
    joined = config.model_copy(update={"address": "10.0.0.1:6379"})
    assert supervisor._on_this_machine(joined, heard) is joined
    assert heard.notices == []
    here = supervisor._on_this_machine(config, heard)
    assert (here.node_labels, here.resources_of_a_rank) == ({}, {"CPU": 1.0})
    assert heard.notices == [
        "ignoring cluster.node_labels (pool train) and cluster.resources_per_rank (rack 1.0), "
        "because this run uses only this machine, without a cluster"
    ]


class Part:
    """Part of a session that logs when it begins and ends."""

    def __init__(self, events, name, *arguments):
        self.events, self.name, self.arguments = events, name, arguments

    def __enter__(self):
        self.events.append(f"{self.name} begins")
        return self

    def __exit__(self, *_):
        self.events.append(f"{self.name} ends")


class Workers:
    def __init__(self, events, *arguments, **options):
        self.events, self.arguments, self.options = events, arguments, options

    def start(self, count):
        self.events.append(f"{count} data workers")


@pytest.fixture
def session(phrasebook, folder, monkeypatch):
    """Return a function that trains in a session whose parts are scripted and logged."""
    events, made = [], {}

    def part(name):
        def make(*arguments):
            made[name] = arguments
            return Part(events, name, *arguments)

        return make

    for name, function in {
        "ray_session": part("Ray"),
        "ClusterView": part("view"),
        "RankPool": part("supply"),
        "RayMetrics": part("metrics"),
    }.items():
        monkeypatch.setattr(supervisor, name, function)
    monkeypatch.setattr(supervisor, "require_gpus", lambda count: made.update(gpus=count))
    monkeypatch.setattr(
        supervisor, "DataWorkers", lambda *given, **options: Workers(events, *given, **options)
    )

    class Loop:
        def __init__(self, recipe, manifest, context, profile, replay):
            made["loop"] = (recipe, manifest, context, profile, replay)

        def run(self):
            if "fails" in made:
                raise made["fails"]
            made["second signal"] = made["loop"][2].stop._obeys_interrupts
            return "finished"

    monkeypatch.setattr(supervisor, "RestartLoop", Loop)

    def train(fails=None, **cluster):
        if fails:
            made["fails"] = fails
        recipe = tiny_recipe(phrasebook)
        config = recipe.cluster.model_copy(update=cluster)
        recipe = recipe.model_copy(update={"cluster": config})
        store, manifest = check_run(recipe, folder)
        heard = Heard()
        options = SupervisionOptions("the profile", strict=True, replay="the replay")
        outcome = supervise(recipe, folder, store, manifest, heard, options)
        return SimpleNamespace(outcome=outcome, recipe=recipe, manifest=manifest, heard=heard)

    train.made, train.events = made, events
    return train


def test_the_parts_of_a_session_get_the_values_of_the_recipe(session, folder):
    trained = session(
        data_workers=3,
        cpus_per_data_worker=0.5,
        data_memory_megabytes=7,
        wait_for_head_seconds=12.0,
        niceness=4,
        gpus_per_rank=1,
    )
    made, recipe = session.made, trained.recipe
    assert trained.outcome == "finished"
    recipe_of_loop, manifest, context, profile, replay = made["loop"]
    assert (recipe_of_loop, manifest) == (recipe, trained.manifest)
    assert (profile, replay) == ("the profile", "the replay")
    assert (context.run, context.config, context.listener) == (
        folder,
        recipe.cluster,
        trained.heard,
    )
    assert context.lease.work.parent == folder.checkpoints
    address, embedded, tell_open = made["Ray"]
    assert (address, embedded.niceness) == (None, 4)
    assert tell_open.keywords == {"strict": True, "notice": trained.heard.notice}
    assert made["view"] == (12.0, trained.heard.notice)
    assert made["metrics"] == (folder.path, None)
    config, clock, environment, unfit = made["supply"]
    assert (config, clock, unfit) == (recipe.cluster, context.clock, context.unfit)
    assert environment == allocator_environment(shapes_recur=True)
    assert made["gpus"] == recipe.cluster.least_gpus > 0
    workers = context.workers
    assert workers.arguments == (recipe.data_settings, manifest.identity)
    assert workers.options == {"cpus": 0.5, "cache_bytes": 7_000_000}


def test_parts_of_a_session_end_in_reverse_order(session):
    session(data_workers=2)
    names = ["Ray", "view", "supply", "metrics"]
    begun = [f"{name} begins" for name in names]
    assert session.events == [*begun, "2 data workers", *(f"{name} ends" for name in names[::-1])]


def test_a_session_that_fails_ends_its_parts(session):
    with pytest.raises(RankLostError, match="too often"):
        session(fails=RankLostError("too often"))
    assert session.events[-1] == "Ray ends"


def test_a_second_signal_interrupts_a_session_only_while_it_trains(session):
    session()
    assert session.made["second signal"]
    (_, _, context, *_) = session.made["loop"]
    assert not context.stop._obeys_interrupts


def test_a_second_signal_ends_a_run_as_preempted(session):
    trained = session(fails=KeyboardInterrupt())
    assert trained.outcome == "stopped"
    assert trained.heard.notices[-1] == INTERRUPTED


def test_a_lost_ray_is_the_cause_of_the_next_restart(train, folder):
    outcomes = iter([EmbeddedRayError("raylet has ended"), "finished"])
    keepers = []
    enter = StatusWriter.__enter__

    def lose():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        keepers[0].attempt_begins(["a"])
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatusWriter, "__enter__", lambda self: keepers.append(self) or enter(self))
        assert train(lose)[0] == "finished"
    assert [one.cause for one in read_status(folder).vitals.restarts] == ["raylet has ended"]


def test_progress_resets_the_number_of_sessions_without_progress(folder, train):
    steps, sessions = iter([4, None, None, None, None, 5]), []

    def lose():
        sessions.append("lost")
        if (step := next(steps, None)) is not None:
            with folder.metrics.open("a") as file:
                print(train_line(step).to_json(), file=file)
        raise EmbeddedRayError("raylet has ended")

    with pytest.raises(EmbeddedRayError, match="no further than step 5 in 5 sessions"):
        train(lose)
    assert len(sessions) == 6 + SESSIONS_WITHOUT_PROGRESS


def test_a_complete_run_starts_no_session(train, monkeypatch):
    monkeypatch.setattr(supervisor, "is_run_complete", lambda *_: True)
    outcome, notices = train(lambda: pytest.fail("a session was started"))
    assert (outcome, notices) == ("finished", [])
