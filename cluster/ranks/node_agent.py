"""Actors on the nodes of the ranks, one per node, for actions that need a process on the node.

An agent kills processes immediately, whereas Ray takes five seconds for a stopped process. It also
checks that the node has the run folder and the driver's transloom, and measures the node's
utilization. It needs no resources and hardly any memory.
"""

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.health.stacks import COLLECT_SECONDS, stacks_of
from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import Watchdog
from cluster.packages import digest_of_sources, other_sources
from cluster.ranks.node_memory import NodeMemory
from cluster.ranks.node_meter import NodeMeter
from cluster.ranks.node_mirror import FileChange, NodeMirror, SentFile
from cluster.ray.embedded import embedded_ray_is_lost, is_embedded
from trainer.checkpoints.memory_file import MemoryFile
from trainer.checkpoints.memory_folder import remove_stale_folders
from trainer.checkpoints.process_identity import start_tick
from trainer.record.node_usage import Usage
from trainer.runs.folder import RunFolder

ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.5
START_SECONDS = 60.0
PULL_SECONDS = 120.0
# Time for a killed process to end. With a CUDA context, freeing memory takes a second or two.
DEATH_SECONDS = 30.0


class SilentNodesError(Exception):
    """Nodes that did not answer in time; they get no ranks until they answer."""


@dataclass(frozen=True)
class ProcessName:
    """Identity of a process on a node, unique while the machine runs.

    A process id alone may be reused.
    """

    node: str
    id: int
    started: int | None

    @classmethod
    def of_this_process(cls) -> "ProcessName":
        node: str = ray.get_runtime_context().get_node_id()
        return cls(node, os.getpid(), start_tick(os.getpid()))

    def is_alive(self) -> bool:
        """Return whether the process is alive; must be called on its node."""
        return self.started is not None and start_tick(self.id) == self.started

    def new_rendezvous(self) -> Path:
        """Return a new path for a rendezvous file of the node's ranks, without creating it."""
        return Path(tempfile.gettempdir()) / f"{self._rendezvous}-{secrets.token_hex(8)}"

    def rendezvous_files(self) -> list[Path]:
        """Return the rendezvous files that exist."""
        return list(Path(tempfile.gettempdir()).glob(f"{self._rendezvous}-*"))

    @property
    def _rendezvous(self) -> str:
        return f"transloom-rendezvous-{self.id}-{self.started}"


@ray.remote(
    num_cpus=0,
    max_restarts=-1,
    concurrency_groups={
        "folder": 1,
        "stacks": 1,
        "usage": 1,
        "copies": 1,
        "memory": 4,
        "mirror": 1,
    },
)
class NodeAgent:
    """Actor that stays on a node for as long as the run's supervisor lives."""

    def __init__(self) -> None:
        self._memory = NodeMemory()
        self._watchdog = Watchdog(at_end=self._memory.close)
        self._raylet = os.getppid()
        self._meter = NodeMeter()
        remove_stale_folders()

    def heartbeat(self) -> None:
        """Record that the supervisor is alive."""
        self._watchdog.heartbeat()
        self._exit_with_raylet()

    def _exit_with_raylet(self) -> None:
        """Exit if the raylet has died.

        Otherwise the agent would survive for another second, and report a lost node as alive.
        """
        if os.getppid() != self._raylet:
            os.kill(os.getpid(), signal.SIGKILL)

    def kill(self, processes: list[ProcessName]) -> None:
        """Kill processes without waiting for their end; the prompt answer serves as a heartbeat."""
        _kill_here(processes)
        self._exit_with_raylet()

    def await_deaths(self, processes: list[ProcessName]) -> None:
        """Wait until processes are gone, at most `DEATH_SECONDS`; remove their rendezvous files."""
        _await_deaths_here(processes, self._watchdog.heartbeat)

    @ray.method(concurrency_group="stacks")
    def stacks(self, processes: list[ProcessName]) -> list[str]:
        """Return the stacks of each process; see `cluster.health.stacks`."""
        return stacks_of([process.id for process in processes])

    @ray.method(concurrency_group="usage")
    def usage(self) -> Usage:
        """Return the node's utilization since the last call."""
        return self._meter.sample()

    @ray.method(concurrency_group="folder")
    def check_shared_folder(self, folder: Path, left: str, answer: str) -> str | None:
        """Check that this node shares a folder with the supervisor; return the error, or None.

        The agent reads the supervisor's file, and creates a file next to it.

        Args:
            folder: the folder of both files.
            left: name of the supervisor's file.
            answer: name of the file to create.
        """
        try:
            (folder / left).read_bytes()
            (folder / answer).touch()
        except OSError as error:
            return error.strerror or str(error)
        return None

    @ray.method(concurrency_group="mirror")
    def open_mirror(self, url: str, work: str, left: str, answer: str) -> str | None:
        """Prepare the node's copy of a run in an object store; see `NodeMirror.answer_probe`."""
        try:
            self._mirror = NodeMirror(url)
            self._mirror.answer_probe(work, left, answer)
        except OSError as error:
            return error.strerror or str(error)
        return None

    @ray.method(concurrency_group="mirror")
    def pull_run(self, work: str, *, with_files: bool) -> dict[str, SentFile]:
        """Run `NodeMirror.pull`."""
        return self._mirror.pull(work, with_files=with_files)

    @ray.method(concurrency_group="mirror")
    def changed_files(
        self, known: dict[str, SentFile], names: Collection[str]
    ) -> tuple[list[FileChange], bool]:
        """Run `NodeMirror.changes`."""
        return self._mirror.changes(known, names)

    @ray.method(concurrency_group="memory")
    def open_memory(self, name: str) -> str | None:
        """Run `NodeMemory.open`."""
        return self._memory.open(name)

    @ray.method(concurrency_group="memory")
    def read_memory(self, path: Path, start: int, stop: int) -> Any:
        """Run `NodeMemory.read`."""
        return self._memory.read(path, start, stop)

    @ray.method(concurrency_group="memory")
    def verify_memory(self, file: MemoryFile) -> None:
        """Run `NodeMemory.verify`."""
        self._memory.verify(file)

    @ray.method(concurrency_group="copies")
    def copy_memory(self, source: Any, file: MemoryFile) -> MemoryFile:
        """Run `NodeMemory.copy`."""
        return self._memory.copy(source, file)

    @ray.method(concurrency_group="copies")
    def keep_attempts(self, attempts: list[str]) -> None:
        """Run `NodeMemory.keep_attempts`."""
        self._memory.keep_attempts(attempts)

    @ray.method(concurrency_group="memory")
    def close_memory(self) -> None:
        """Run `NodeMemory.close`."""
        self._memory.close()

    @ray.method(concurrency_group="folder")
    def sources(self) -> str:
        """Return the digest of the transloom sources that ranks import on this node."""
        return digest_of_sources()


class NodeAgents:
    """Client of all node agents, in the supervisor."""

    def __init__(self, unfit: UnfitNodes, give_up: Callable[[], bool] = lambda: False) -> None:
        """Create a client without agents.

        Args:
            unfit: receives the nodes without the run folder, or with other sources.
            give_up: returns True if `check` and `pull_run` should end early, without a result,
                because the run must stop.
        """
        self.by_node: dict[str, Any] = {}
        self.separate: set[str] = set()  # nodes that do not share the folder of a remote run
        self._unfit = unfit
        self._give_up = give_up
        self._sources = digest_of_sources()
        self._names: dict[str, str] = {}
        self._asked: dict[str, Any] = {}  # pending answers of silent agents
        self._checked_nodes: set[str] = set()
        self._uses_memory = False
        self._measuring: dict[str, Any] = {}  # pending answers with utilizations

    def start(self, names: Mapping[str, str]) -> None:
        """Start missing agents, so that each of these nodes has one.

        Args:
            names: the name of each node in messages, by node id.
        """
        for node, name in names.items():
            if node not in self.by_node:
                self._names[node] = name
                self.by_node[node] = NodeAgent.options(  # type: ignore[attr-defined]
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
                ).remote()

    def name(self, node: str) -> str:
        """Return the name in messages of a node with an agent."""
        return self._names[node]

    def kill(self, processes: Iterable[ProcessName]) -> None:
        """Kill processes on all nodes, and wait until they are gone.

        Nodes whose agent has already failed to answer are not awaited. If an embedded Ray is lost,
        its agents are lost, too. All processes are then on this machine, and this process kills
        them itself.
        """
        if embedded_ray_is_lost():
            _kill_here(mine := list(processes))
            _await_deaths_here(mine)
            return
        of_node: dict[str, list[ProcessName]] = {}
        for process in processes:
            of_node.setdefault(process.node, []).append(process)
        agents = self.by_node
        killed = {node: agents[node].kill.remote(mine) for node, mine in of_node.items()}
        gone = {node: agents[node].await_deaths.remote(mine) for node, mine in of_node.items()}
        _wait([killed[node] for node in of_node if node not in self._asked], ANSWER_SECONDS)
        self._asked |= {node: gone[node] for node in of_node if not answered(killed[node])}
        _wait([gone[node] for node in of_node if node not in self._asked], DEATH_SECONDS)

    def stacks(self, processes: Iterable[ProcessName]) -> dict[ProcessName, str]:
        """Collect the stacks of processes from the nodes that answer in time."""
        of_node: dict[str, list[ProcessName]] = {}
        for process in processes:
            of_node.setdefault(process.node, []).append(process)
        agents = self.by_node
        asked = {node: agents[node].stacks.remote(mine) for node, mine in of_node.items()}
        _wait(list(asked.values()), COLLECT_SECONDS)
        return {
            process: text
            for node, mine in of_node.items()
            if answered(asked[node])
            for process, text in zip(mine, ray.get(asked[node]), strict=True)
        }

    def ping(self, nodes: Collection[str]) -> set[str]:
        """Send a heartbeat to the agents of these nodes; return the nodes that do not answer."""
        signs = {n: self.by_node[n].heartbeat.remote() for n in nodes if n not in self._asked}
        _wait(list(signs.values()), ANSWER_SECONDS)
        self._asked |= {node: sign for node, sign in signs.items() if not answered(sign)}
        return self._asked.keys() & set(nodes)

    def unresponsive(self, nodes: Collection[str]) -> set[str]:
        """Return those of `nodes` whose agent has not answered its last request.

        Such a node is lost or unreliable, although Ray may report this only later.
        """
        for node, answer in list(self._asked.items()):
            if node not in nodes or answered(answer):
                del self._asked[node]
            elif ray.wait([answer], timeout=0)[0]:  # an error: ping the node's restarted agent
                self._asked[node] = self.by_node[node].heartbeat.remote()
        return set(self._asked)

    def ask_usage(self, nodes: Collection[str]) -> None:
        """Request utilization from the agents of these nodes, unless an answer is pending.

        This does not wait; `usage` returns the answers that have arrived.
        """
        for node in nodes:
            if node in self.by_node and node not in self._measuring:
                self._measuring[node] = self.by_node[node].usage.remote()

    def usage(self) -> dict[str, Usage]:
        """Return the utilizations that have arrived since the last call, by the nodes' names."""
        found = {}
        for node, answer in list(self._measuring.items()):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            del self._measuring[node]
            with suppress(RayError):  # the agent is lost, or could not measure
                found[self._names[node]] = ray.get(answer, timeout=0)
        return found

    def open_memory(self, name: str, nodes: Collection[str]) -> list[str]:
        """Create the run's folder in the memory of these nodes; return the problems.

        Args:
            name: the name of the run's folders, see `memory_folder_name`.
            nodes: the nodes, which have agents.
        """
        self._uses_memory = True
        answers = {node: self.by_node[node].open_memory.remote(name) for node in nodes}
        _wait(list(answers.values()), ANSWER_SECONDS)
        problems = []
        for node, answer in answers.items():
            problem = ray.get(answer) if answered(answer) else "its agent does not answer"
            if problem:
                problems.append(f"node {self._names[node]}: {problem}")
        return problems

    def close_memory(self) -> None:
        """Remove the run's folders from the memory of all nodes, as far as agents answer."""
        if self._uses_memory and not embedded_ray_is_lost():
            _wait([agent.close_memory.remote() for agent in self.by_node.values()], ANSWER_SECONDS)

    def pull_run(
        self, work: str, nodes: Collection[str], first: Collection[str]
    ) -> tuple[dict[str, dict[str, SentFile]], list[str]]:
        """Pull a run in an object store to nodes that do not share the driver's folder.

        Args:
            work: the name of the owner's work folder.
            nodes: the nodes that need only the checkpoints.
            first: the node of rank 0, which needs all files, if it is among them.

        Returns:
            The state of the files on each node, and the problems of nodes, which become unfit.

        Raises:
            SilentNodesError: nodes have not answered in time.
        """
        answers = {
            node: self.by_node[node].pull_run.remote(work, with_files=node in first)
            for node in [*nodes, *first]
        }
        _wait(list(answers.values()), PULL_SECONDS, self._give_up)
        if self._give_up():
            return {}, []
        files, problems, silent = {}, [], []
        for node, answer in answers.items():
            name = f"Node {self._names[node]}"
            try:
                files[node] = ray.get(answer, timeout=0)
            except GetTimeoutError:
                self._asked[node] = answer
                silent.append(f"{name} has not pulled the run within {PULL_SECONDS:.0f} s")
            except RayTaskError as error:
                text = f"{name} cannot pull the run: {error.cause}"
                problems.append(self._unfit.add(node, text).text)
            except RayError:
                pass  # the node is lost, which ends the attempt
        _raise_if_silent(silent, problems)
        return files, problems

    def check(self, work: Path, run: RunFolder) -> list[str]:
        """Check that every node has the run folder and the same transloom as the driver.

        Nodes without the folder of a run in an object store are not unfit, but `separate`.

        The supervisor and the agents create files in the folder. Nodes that do not see the files,
        cannot write there or have other sources are added to the unfit nodes.

        An embedded Ray has one node, the driver's, so no agent is asked.

        Args:
            work: the supervisor's work folder within the run.

        Returns:
            Problems of nodes that have not been checked before.

        Raises:
            SilentNodesError: nodes have not answered in time. Another call asks them again.
        """
        new = self.by_node.keys() - self._checked_nodes - self._asked.keys()
        if not new:
            return []
        if is_embedded():
            self._checked_nodes |= new
            return [p for node in new if (p := self._other_sources(node, digest_of_sources()))]
        left = f"probe-{secrets.token_hex(4)}"
        (work / left).touch()
        folder_checks = {node: self._meet(node, run, work, left) for node in new}
        sources = {node: self.by_node[node].sources.remote() for node in new}
        problems, silent = [], []
        try:
            _wait([*folder_checks.values(), *sources.values()], START_SECONDS, self._give_up)
            if self._give_up():
                return []
            for node, folder_check in folder_checks.items():
                name, answer = f"Node {self._names[node]}", work / f"{left}-{node}"
                try:
                    problem = _folder_problem(name, folder_check, run, answer)
                    found = None if problem else _reported_sources(sources[node])
                except GetTimeoutError:
                    self._asked[node] = sources[node]  # answered after the folder check
                    silent.append(
                        f"{name} has not answered within {START_SECONDS:.0f} s whether it has "
                        f"{run.path}, the run's folder"
                    )
                    continue
                self._checked_nodes.add(node)
                if run.url and not answer.exists():
                    self.separate.add(node)
                if problem:
                    problems.append(self._unfit.add(node, problem).text)
                elif problem := self._other_sources(node, found):
                    problems.append(problem)
        finally:
            for probe in work.glob(f"{left}*"):
                probe.unlink()
        _raise_if_silent(silent, problems)
        return problems

    def _other_sources(self, node: str, found: str | None) -> str | None:
        """Return the problem of a node whose sources differ, which becomes unfit, or None."""
        if found is None or found == self._sources:
            return None
        text = other_sources(f"Node {self._names[node]}", found, self._sources, "train")
        return self._unfit.add(node, text).text

    def _meet(self, node: str, run: RunFolder, work: Path, left: str) -> Any:
        """Ask a node's agent to find the driver's file, and to create one next to it."""
        agent, answer = self.by_node[node], f"{left}-{node}"
        if run.url:
            return agent.open_mirror.remote(run.url, work.name, left, answer)
        return agent.check_shared_folder.remote(work, left, answer)


def _raise_if_silent(silent: list[str], problems: list[str]) -> None:
    """Raise the error of silent nodes, which also names the problems of other nodes."""
    if silent:
        text = ". ".join([*problems, *silent])
        raise SilentNodesError(f"{text}. Check the node's load, its storage, and Ray's logs there")


def _folder_problem(name: str, folder_check: Any, run: RunFolder, answer: Path) -> str | None:
    """Return a node's problem with the folder; None if it has no problem or its agent is lost.

    Args:
        name: the node's name for the message.
        answer: the file that the node must have created; not needed if the run is in an object
            store.

    Raises:
        GetTimeoutError: the node has not answered.
    """
    try:
        problem: str | None = ray.get(folder_check, timeout=0)
    except GetTimeoutError:
        raise
    except RayError:
        return None
    if run.url:
        return problem and f"{name} cannot keep a copy of {run.url} in {run.path}: {problem}"
    if problem is None and not answer.exists():
        problem = "files that the node writes there are not visible to the driver"
    return problem and (
        f"{name} does not have the run's folder {run.path} ({problem}). Use --run PATH to name a "
        "folder on storage that all nodes see at the same path, or --run s3://… for nodes without "
        "such storage"
    )


def _reported_sources(answer: Any) -> str | None:
    """Return the digest that an agent reported, or None if the agent is lost.

    Raises:
        GetTimeoutError: the agent has not answered.
    """
    try:
        found: str = ray.get(answer, timeout=0)
    except GetTimeoutError:
        raise
    except RayTaskError:  # the request failed on the agent
        return "unknown"
    except RayError:
        return None
    return found


def _kill_here(processes: list[ProcessName]) -> None:
    for process in processes:
        if process.is_alive():
            with suppress(ProcessLookupError):  # the process has ended in the meantime
                os.kill(process.id, signal.SIGKILL)


def _await_deaths_here(
    processes: list[ProcessName], meanwhile: Callable[[], None] = lambda: None
) -> None:
    deadline = time.monotonic() + DEATH_SECONDS
    while any(map(ProcessName.is_alive, processes)) and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.01)
    for process in processes:
        for file in process.rendezvous_files():
            file.unlink(missing_ok=True)


def _wait(answers: list[Any], seconds: float, give_up: Callable[[], bool] = lambda: False) -> None:
    """Wait until all answers have arrived, `seconds` have passed, or the embedded Ray is lost.

    Args:
        give_up: returns True to end the wait early.
    """
    deadline = time.monotonic() + seconds
    while answers and (left := deadline - time.monotonic()) > 0:
        if embedded_ray_is_lost() or give_up():
            return
        _, answers = ray.wait(answers, num_returns=len(answers), timeout=min(left, POLL_SECONDS))


def answered(answer: Any) -> bool:
    """Return whether an actor's answer has arrived without an error."""
    try:
        ray.get(answer, timeout=0)
    except RayError:  # not yet, or the agent is lost
        return False
    return True
