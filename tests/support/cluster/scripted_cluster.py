"""Cluster without Ray for `RestartLoop` and `Attempt`: scripted groups and a simulated clock.

Run folder, lease, checkpoints and record are real. Scripted are the ranks' reports, the nodes and
the passing of time: each wait for a group advances the clock.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cluster.config import ClusterConfig
from cluster.errors import RankLostError
from cluster.health.hang_detector import Position
from cluster.health.unfit_nodes import UnfitNodes
from cluster.node_check.verdicts import NodeCheckReport
from cluster.ranks.group import Poll
from cluster.ranks.node_memory import StoredFile
from cluster.ranks.reports import MemoryWritten, RecordedLine, StateWritten
from cluster.ray.cluster_view import Node
from cluster.supervision import attempt as attempt_module
from cluster.supervision.attempt import RunContext
from cluster.supervision.memory_tier import MemoryTier
from cluster.supervision.restart_loop import RestartLoop
from cluster.supervision.run_checks import check_run, open_run
from cluster.supervision.share_target import FollowedTarget
from cluster.supervision.status_writer import StatusWriter
from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.checkpoints.state_file import state_file_name, write_state_file
from run_store.folder import RunFolder
from run_store.lease import Lease
from support.recipes import tiny_recipe
from support.records.checkpoints import make_header, save_checkpoint
from support.records.lines import train_line

NOTHING = Poll([])
FINISHED = Poll([], outcomes=["finished"])
DRIVER = "driver"  # the node of the driver


def trained(step: int) -> Poll:
    """Return a poll in which rank 0 reports that it has trained a step."""
    return Poll([(0, RecordedLine(train_line(step)))])


def lost(text: str = "Rank 0 is lost") -> Poll:
    return Poll([], failure=RankLostError(text))


def node(name: str, cpus: float = 4.0) -> Node:
    return Node(name, name, {"CPU": cpus}, {"CPU": cpus})


def write_part(run: SimpleNamespace, step: int, rank: int = 0, ranks: int = 1) -> Poll:
    """Return a poll in which a rank of the newest group reports its state file of a step.

    Args:
        run: as `scripted_run` yields it.
    """
    job, card = run.supply.groups[-1].job, run.context.run.card()
    partial = partial_folder(job.work, step, job.attempt)
    partial.mkdir(exist_ok=True)
    file = write_state_file(partial / state_file_name(rank, ranks), {}, [])
    header = make_header(
        step, dataset_identity=run.manifest.identity, identity=card.identity, parameters={}
    )
    return Poll([(rank, StateWritten(file, header))])


def write_memory(run: SimpleNamespace, step: int, rank: int = 0) -> Poll:
    """Return a poll in which a rank reports that it has written its share of a step to memory."""
    header = make_header(step, dataset_identity=run.manifest.identity)
    file = MemoryFile(Path(f"/dev/shm/{step}/{rank}"), 1, 0)
    return Poll([(rank, MemoryWritten(file, header))])


def save_step(run: SimpleNamespace, step: int) -> Path:
    """Write a checkpoint like that of an earlier attempt, and return its folder."""
    identity = run.context.run.card().identity
    header = make_header(step, dataset_identity=run.manifest.identity, identity=identity)
    share = [Fragment("master", "w", 0, torch.ones(4))]
    return save_checkpoint(run.context.run.checkpoints, header, [share]).path


class HandClock:
    """Clock that a test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def poll(self) -> float:
        return self.now


class ScriptedGroup:
    """Ranks of one attempt, one per node, with the polls that they answer."""

    def __init__(
        self,
        polls: Sequence[Poll],
        nodes: Sequence[str],
        clock: HandClock,
        wait_seconds: float,
        is_training: bool,
        obeys: bool,
    ) -> None:
        self.nodes = list(nodes)
        self.is_training = is_training
        self.obeys = obeys
        self.job = None
        self.workers: list[object] = []
        self.memory_steps = MemorySteps()
        self.asked_to_stop_at: float | None = None
        self.times_asked_to_stop = 0
        self._polls = iter(polls)
        self._clock = clock
        self._wait_seconds = wait_seconds

    def start(self, job, workers):
        self.job, self.workers = job, list(workers)

    def use_workers(self, workers):
        self.workers = list(workers)

    def report_memory_steps(self, steps):
        self.memory_steps = steps

    def wait(self, seconds):
        self._clock.now += self._wait_seconds

    def poll(self):
        if self.is_training and self.obeys and self.asked_to_stop_at is not None:
            return Poll([], outcomes=["stopped"])
        return next(self._polls)

    def request_stop(self):
        self.asked_to_stop_at = self._clock.now
        self.times_asked_to_stop += 1

    def heartbeats(self):
        return [(Position("step", 5), 1.0) for _ in self.nodes]

    @property
    def node_names(self):
        return tuple(self.nodes)


class ScriptedSupply:
    """Supply of groups, in the order of a script.

    Attributes:
        places: the nodes that are offered, one for each rank.
        unfit: nodes that are not offered.
        silent: the nodes whose agent does not answer.
        problems: the problems that each check of the nodes finds, in order; later checks find none.
        reports: the report of each check of the nodes' hardware, in order; later checks have none.
        trains: whether the ranks of groups have begun to train when they are asked to leave.
        obeys: whether training ranks leave when they are asked to.
        ended: how many times a group was ended.
    """

    def __init__(self, scripts, places, clock, wait_seconds) -> None:
        self._scripts = iter(scripts)
        self.places = places
        self.unfit = UnfitNodes()
        self.silent: set[str] = set()
        self.problems: list[list[str]] = []
        self.reports: list[NodeCheckReport] = []
        self.is_training = self.obeys = True
        self.ended = 0
        self.groups: list[ScriptedGroup] = []
        self._clock, self._wait_seconds = clock, wait_seconds

    def offer(self, nodes):
        return [place for place in self.places if place in nodes and place not in self.unfit]

    def start_group(self, places, names):
        group = ScriptedGroup(
            next(self._scripts),
            places,
            self._clock,
            self._wait_seconds,
            self.is_training,
            self.obeys,
        )
        self.groups.append(group)
        return group

    def end_group(self):
        self.ended += 1

    def check_nodes(self, work, run):
        return self.problems.pop(0) if self.problems else []

    def check_hardware(self, folders):
        return self.reports.pop(0) if self.reports else None

    def silent_nodes(self, nodes):
        return sorted(self.silent & set(nodes))

    def unresponsive_nodes(self, nodes):
        return self.silent & set(nodes)

    def open_memory(self, name):
        return []

    def stored_file(self, file, node):
        return StoredFile(file, node, None)

    def keep_attempts(self, attempts):
        pass

    def refill_spares(self):
        pass

    def stacks(self):
        return {}

    def collectives(self):
        return {}

    def ask_usage(self):
        pass

    def usage(self):
        return {}


class ScriptedView:
    """Nodes of the cluster a second ago and now."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.now = {one.id: one for one in nodes}
        self.before = dict(self.now)

    def nodes(self):
        return self.before

    def query_nodes(self, give_up=None):
        return self.now


class NoWorkers:
    """Empty set of data workers, for runs that need none."""

    def __init__(self) -> None:
        self.actors: list[object] = []
        self.handles: list[object] = []

    def cancel_starting(self):
        return 0

    def admit(self):
        pass

    def windows_read_text(self):
        return "no data workers"


class Notices:
    """Listener that keeps notices, texts for the log only, and lines of the record."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.kept: list[str] = []
        self.lines: list[object] = []

    def notice(self, text):
        self.notices.append(text)

    def log_detail(self, text):
        self.kept.append(text)

    def line(self, line):
        self.lines.append(line)

    def vitals(self, vitals):
        pass


@contextmanager
def scripted_run(
    dataset: Path,
    folder: Path,
    scripts: Sequence[Sequence[Poll]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    places: Sequence[str] = (DRIVER,),
    ranks: int | dict[str, int] = 1,
    wait_seconds: float = 0.1,
    wait_for_ranks_seconds: float = 600.0,
    settings: Mapping[str, object] | None = None,
    memory_every_steps: int = 0,
) -> Iterator[SimpleNamespace]:
    """A run whose attempts follow the scripts.

    Args:
        dataset: a prepared phrase book.
        scripts: for each attempt the polls of its group, in order.
        places: the nodes that are offered, one for each rank.
        wait_seconds: seconds by which each wait for a group advances the clock.
        wait_for_ranks_seconds: value of the recipe, in real time.
        settings: more settings of the recipe's cluster section.
        memory_every_steps: value of the recipe.

    Returns:
        recipe, manifest, loop (a `RestartLoop`), context (its `RunContext`), supply, view, clock
        and audience.
    """
    driver = SimpleNamespace(get_node_id=lambda: DRIVER)
    monkeypatch.setattr(attempt_module, "ray", SimpleNamespace(get_runtime_context=lambda: driver))
    recipe, run, listener = tiny_recipe(dataset), RunFolder(folder), Notices()
    memory = {"memory_every_steps": memory_every_steps}
    checkpoints = recipe.checkpoints.model_copy(update=memory)
    recipe = recipe.model_copy(update={"checkpoints": checkpoints})
    clock = HandClock()
    supply = ScriptedSupply(scripts, places, clock, wait_seconds)
    view = ScriptedView([node(name) for name in {DRIVER, *places}])
    stop = SimpleNamespace(reason=None, asked_at=None, ignore_requests=lambda: None)
    config = ClusterConfig.model_validate(
        {
            "ranks": ranks,
            "node_usage_seconds": 0,
            "wait_for_ranks_seconds": wait_for_ranks_seconds,
            **(settings or {}),
        }
    )
    store, manifest = check_run(recipe, run)
    with Lease(run.path) as lease, StatusWriter(run, lease, listener) as status:
        open_run(recipe, run, store, manifest)
        context = RunContext(
            config=config,
            run=run,
            lease=lease,
            view=view,
            supply=supply,
            memory=MemoryTier(supply, listener.notice),
            workers=NoWorkers(),
            stop=stop,
            listener=listener,
            status=status,
            clock=clock,
            unfit=supply.unfit,
            share=FollowedTarget(run.path, config),
        )
        yield SimpleNamespace(
            loop=RestartLoop(recipe, manifest, context),
            recipe=recipe,
            manifest=manifest,
            context=context,
            supply=supply,
            view=view,
            clock=clock,
            listener=listener,
        )
