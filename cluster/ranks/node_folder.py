"""Check that nodes have the run folder and the driver's transloom.

The supervisor and the agents create files in the folder, and check that they see all these files.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import RayTaskError

from cluster.packages import digest_of_sources, other_sources
from cluster.ranks.agent_client import NodeAgents, wait
from cluster.ray.embedded import is_embedded
from run_store.folder import RunFolder

START_SECONDS = 60.0


class NodeFolders:
    """Checks of the run folder and of transloom on the nodes, each made once.

    Attributes:
        separate: the nodes that do not share the folder of a run in an object store.
    """

    def __init__(self, agents: NodeAgents) -> None:
        self.separate: set[str] = set()
        self._agents = agents
        self._sources = digest_of_sources()
        self._checked: set[str] = set()

    def check(self, work: Path, run: RunFolder) -> list[str]:
        """Check that every node has the run folder and the same transloom as the driver.

        If the run is in an object store, nodes without the folder are `separate` instead of unfit.

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
        agents = self._agents
        new = agents.by_node.keys() - self._checked - agents.silent.keys()
        if not new:
            return []
        if is_embedded():
            self._checked |= new
            return agents.refuse({n: self._other_sources(n, digest_of_sources()) for n in new})
        probe = _FolderProbe(run, work, f"probe-{secrets.token_hex(4)}")
        (work / probe.name).touch()
        try:
            checks = agents.ask({node: node for node in new}, probe.ask)
            sources = agents.ask(dict.fromkeys(new), lambda agent, _: agent.sources.remote())
            wait([*checks.values(), *sources.values()], START_SECONDS, agents.give_up)
            if agents.give_up():
                return []
            silence = (
                f"has not answered within {START_SECONDS:.0f} s whether it has {run.path}, the "
                "run's folder"
            )
            answers, silent = agents.gather(checks, silence)
            texts = {n: probe.problem(n, agents.names[n], answer) for n, answer in answers.items()}
            fit = [n for n in new - agents.silent.keys() if not texts.get(n)]
            digests, late = agents.gather({n: sources[n] for n in fit}, silence)
            texts |= {n: self._other_sources(n, digest) for n, digest in digests.items()}
            checked = new - agents.silent.keys()
            self._checked |= checked
            if run.url:
                self.separate |= {n for n in checked if not probe.file(n).exists()}
        finally:
            for file in work.glob(f"{probe.name}*"):
                file.unlink()
        return agents.refuse(texts, [*silent, *late])

    def _other_sources(self, node: str, found: Any) -> str | None:
        """Return the problem of a node that reports other sources than the driver's, or None."""
        if found == self._sources:
            return None
        digest = "unknown" if isinstance(found, RayTaskError) else found
        return other_sources(f"Node {self._agents.names[node]}", digest, self._sources, "train")


@dataclass(frozen=True)
class _FolderProbe:
    """Request to find the driver's file in the work folder, and to create one next to it."""

    run: RunFolder
    work: Path
    name: str

    def file(self, node: str) -> Path:
        """Return the file that a node creates."""
        return self.work / f"{self.name}-{node}"

    def ask(self, agent: Any, node: str) -> Any:
        """Send the request to a node's agent; return the pending answer."""
        answer = self.file(node).name
        if self.run.url:
            return agent.open_mirror.remote(self.run.url, self.work.name, self.name, answer)
        return agent.check_shared_folder.remote(self.work, self.name, answer)

    def problem(self, node: str, name: str, answer: Any) -> str | None:
        """Return a node's problem with the folder as a message; None if it has no problem.

        Args:
            name: the node's name for the message.
            answer: the node's answer; an error if the request failed on the node.
        """
        run = self.run
        if isinstance(answer, RayTaskError):
            return None
        if run.url:
            return answer and f"Node {name} cannot keep a copy of {run.url} in {run.path}: {answer}"
        if answer is None and not self.file(node).exists():
            answer = "files that the node writes there are not visible to the driver"
        return answer and (
            f"Node {name} does not have the run's folder {run.path} ({answer}). Use --run PATH to "
            "name a folder on storage that all nodes see at the same path, or --run s3://… for "
            "nodes without such storage"
        )
