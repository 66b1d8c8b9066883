"""Client of the node agents, in the supervisor: requests to several agents, and their answers.

    ask       a request to the agent of each node ─▶ pending answers by node
    collect   waits ─▶ the answers that arrived
    gather    arrived answers, and messages about silent nodes ─▶ refuse: unfit nodes, and errors
    expect    waits ─▶ nodes that have not answered are silent until they do

Each kind of request is in the module of its subject, for example `node_processes`.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from cluster.health.unfit_nodes import UnfitNodes
from cluster.ray.embedded import embedded_ray_is_lost

ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.5

Key = TypeVar("Key")


class SilentNodesError(Exception):
    """Nodes did not answer in time; they get no ranks until they answer."""


class NodeAgents:
    """Agents of the nodes, one per node.

    Attributes:
        unfit: nodes that get no ranks, with the reasons; checks of nodes add to it.
        give_up: returns True if long waits should end early, because the run must stop.
        by_node: the agents, by node id.
        names: the names of their nodes in messages, by node id.
        silent: the pending answers of nodes that have not answered in time, by node id.
    """

    def __init__(self, unfit: UnfitNodes, give_up: Callable[[], bool] = lambda: False) -> None:
        self.unfit = unfit
        self.give_up = give_up
        self.by_node: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.silent: dict[str, Any] = {}

    def start(self, names: Mapping[str, str], start_agent: Callable[[str], Any]) -> None:
        """Start missing agents, so that each of these nodes has one.

        Args:
            names: the name of each node in messages, by node id.
            start_agent: starts the agent of a node, given by its id.
        """
        for node in names.keys() - self.by_node.keys():
            self.names[node] = names[node]
            self.by_node[node] = start_agent(node)

    def ask(
        self, arguments: Mapping[str, Any], request: Callable[[Any, Any], Any]
    ) -> dict[str, Any]:
        """Send a request to the agents of several nodes; return the pending answers by node.

        Args:
            arguments: the argument of each node's request, by node id.
            request: sends a request with an argument to an agent.
        """
        return {node: request(self.by_node[node], one) for node, one in arguments.items()}

    def collect(self, answers: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Wait for answers, and return the values of those that have arrived without an error."""
        wait(answers.values(), seconds)
        return {node: ray.get(one) for node, one in answers.items() if answered(one)}

    def gather(self, answers: Mapping[str, Any], silence: str) -> tuple[dict[str, Any], list[str]]:
        """Return the answers that have arrived; record nodes without an answer as silent.

        Args:
            silence: the end of the message about a node that has not answered.

        Returns:
            The value or the `RayTaskError` of each node that is neither silent nor lost, and the
            messages about silent nodes.
        """
        results: dict[str, Any] = {}
        messages = []
        for node, answer in answers.items():
            try:
                results[node] = ray.get(answer, timeout=0)
            except GetTimeoutError:
                self.silent[node] = answer
                messages.append(f"Node {self.names[node]} {silence}")
            except RayTaskError as error:
                results[node] = error
            except RayError:
                pass  # the node is lost, which ends the attempt
        return results, messages

    def refuse(self, texts: Mapping[str, str | None], silent: Collection[str] = ()) -> list[str]:
        """Add nodes with a problem to the unfit nodes; return the problems.

        Args:
            texts: the problem of each node, by node id; None if it has none.
            silent: messages about silent nodes.

        Raises:
            SilentNodesError: there are silent nodes; the error names the problems, too.
        """
        problems = [self.unfit.add(node, text).text for node, text in texts.items() if text]
        if not silent:
            return problems
        text = ". ".join([*problems, *silent])
        raise SilentNodesError(f"{text}. Check the node's load, its storage, and Ray's logs there")

    def expect(self, answers: Mapping[str, Any], later: Mapping[str, Any]) -> None:
        """Wait for answers of nodes that are not silent; record nodes without an answer as silent.

        Args:
            later: for each node, the pending answer that ends its silence when it arrives.
        """
        wait([one for node, one in answers.items() if node not in self.silent], ANSWER_SECONDS)
        self.silent |= {node: later[node] for node, one in answers.items() if not answered(one)}

    def ping(self, nodes: Collection[str]) -> set[str]:
        """Send a heartbeat to the agents of these nodes; return the nodes that do not answer."""
        asked = dict.fromkeys(node for node in nodes if node not in self.silent)
        signs = self.ask(asked, lambda agent, _: agent.heartbeat.remote())
        self.expect(signs, signs)
        return self.silent.keys() & set(nodes)

    def unresponsive(self, nodes: Collection[str]) -> set[str]:
        """Return those of `nodes` whose agent has not answered its last request.

        Such a node is lost or unreliable, although Ray may report this only later.
        """
        for node, answer in list(self.silent.items()):
            if node not in nodes or answered(answer):
                del self.silent[node]
            elif ray.wait([answer], timeout=0)[0]:  # it is an error: ping the restarted agent
                self.silent[node] = self.by_node[node].heartbeat.remote()
        return set(self.silent)


def arrived_answers(answers: Mapping[Key, Any]) -> dict[Key, Any]:
    """Return the answers that have arrived, by key; a failed answer is returned as its error.

    One `ray.wait` and one `ray.get` serve all answers, because each call costs the driver more time
    than an additional answer. `ray.get` of a list raises the first error without naming its answer.
    If there is an error, the answers are therefore read one by one.

    Args:
        answers: distinct references to answers.
    """
    if not answers:
        return {}
    ready = set(ray.wait(list(answers.values()), num_returns=len(answers), timeout=0)[0])
    arrived = {key: answer for key, answer in answers.items() if answer in ready}
    try:
        return dict(zip(arrived, ray.get(list(arrived.values())), strict=True))
    except RayError:
        return {key: _value_or_error(answer) for key, answer in arrived.items()}


def _value_or_error(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except RayError as error:
        return error


def wait(
    answers: Iterable[Any], seconds: float, give_up: Callable[[], bool] = lambda: False
) -> None:
    """Wait until all answers have arrived, `seconds` have passed, or the embedded Ray is lost.

    Args:
        give_up: returns True to end the wait early.
    """
    deadline, pending = time.monotonic() + seconds, list(answers)
    while pending and (left := deadline - time.monotonic()) > 0:
        if embedded_ray_is_lost() or give_up():
            return
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=min(left, POLL_SECONDS))


def answered(answer: Any) -> bool:
    """Return whether an actor's answer has arrived without an error."""
    try:
        ray.get(answer, timeout=0)
    except RayError:  # no answer yet, or the agent is lost
        return False
    return True
