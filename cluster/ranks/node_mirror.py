"""A node's copy of a run in an object store, if the node does not share the driver's folder.

    NodeMirror.pull             object store ──▶ this node: the record, the checkpoints' headers
    pull_run                    the driver asks the agents of several nodes to pull
    NodeMirror.upload_changes   this node ──▶ object store: files that the ranks have written

The driver receives the names of the objects, because it alone may change the run's head.
"""

import shutil
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from ray.exceptions import RayTaskError

from cluster.ranks.agent_client import NodeAgents, wait
from cluster.ray.environment_file import read_environment
from data_pipeline.storage.object_store import ObjectStore
from run_store.remote.files import RECORD, Files, KnownFiles, local_files
from run_store.run_copies import mirror_folder

if TYPE_CHECKING:
    from trainer.job.rank_job import RankJob  # loads recipes, which agents do not need

# Files and directories that ranks write; the driver writes the rest.
RANK_FILES = (RECORD, "curves.bin", "translations", "time-lapse", "wandb", "profile")
# The subset that all ranks write, not only rank 0.
SHARED_RANK_FILES = ("profile",)
PULL_SECONDS = 120.0


class NodeMirror:
    """The node's copy of a run, in the node's agent."""

    def __init__(self, url: str) -> None:
        read_environment()  # sets the credentials of the object store
        self.folder = mirror_folder(url)
        self._url = url

    def answer_probe(self, work: str, left: str, answer: str) -> None:
        """If this node sees the driver's file, confirm the shared folder by a file next to it."""
        folder = self.folder / "checkpoints" / work
        if (folder / left).exists():
            (folder / answer).touch()

    def pull(self, work: str, *, with_files: bool) -> None:
        """Update the copy to the current state of the run, with an empty work folder.

        Args:
            work: the name of the owner's work folder.
            with_files: whether to copy the record and other small files, too, for rank 0.

        Raises:
            RunError: the run is damaged.
            OSError: the object store does not answer, or the folder cannot be written.
        """
        from run_store.remote.pull import RunPuller  # imports the view of a run

        if not with_files:  # files of a former attempt would seem to be new
            for name in local_files(self.folder):
                (self.folder / name).unlink()
        self._files = KnownFiles(self.folder)
        RunPuller(ObjectStore(self._url), self._files, wants=lambda name: with_files).pull()
        self._reported = dict(self._files.files)
        checkpoints = self.folder / "checkpoints"
        for former in checkpoints.glob(".work-*"):
            shutil.rmtree(former, ignore_errors=True)
        (checkpoints / work).mkdir()

    def upload_changes(
        self, names: Collection[str], owner: int, again: Collection[str] = ()
    ) -> tuple[Files, dict[str, object]]:
        """Upload the files that ranks have written since the last call that succeeded.

        Args:
            names: the files and directories to consider.
            owner: the number of the run's owner.
            again: files to upload again, because the driver misses some of their objects.

        Returns:
            The uploaded files with their objects, and the reason for each file that was left out.

        Raises:
            OSError: the object store does not answer, or the record cannot be read.
        """
        for name in again:
            self._files.files.pop(name, None)
            self._reported.pop(name, None)
        wanted = [name for name in local_files(self.folder) if name.split("/")[0] in names]
        problems: dict[str, object] = {}
        store = ObjectStore(self._url)
        self._files.upload_changes(store, wanted, owner, problems.__setitem__)
        before, self._reported = self._reported, dict(self._files.files)
        return {n: file for n, file in self._reported.items() if file != before.get(n)}, problems


def pull_run(
    agents: NodeAgents, work: str, nodes: Collection[str], first: Collection[str]
) -> tuple[set[str], list[str]]:
    """Pull a run in an object store to nodes that do not share the driver's folder.

    Args:
        work: the name of the owner's work folder.
        nodes: the nodes that need only the checkpoints.
        first: the node of rank 0, which needs all files; empty if it shares the driver's folder.

    Returns:
        The nodes that have pulled, and the problems of the others, which become unfit.

    Raises:
        SilentNodesError: nodes have not answered in time.
    """
    answers = agents.ask(
        {node: node in first for node in [*nodes, *first]},
        lambda agent, is_first: agent.pull_run.remote(work, with_files=is_first),
    )
    wait(answers.values(), PULL_SECONDS, agents.give_up)
    if agents.give_up():
        return set(), []
    silence = f"has not pulled the run within {PULL_SECONDS:.0f} s"
    results, silent = agents.gather(answers, silence)
    failed = {
        node: f"Node {agents.names[node]} cannot pull the run: {error.cause}"
        for node, error in results.items()
        if isinstance(error, RayTaskError)
    }
    problems = agents.refuse(failed, silent)
    return results.keys() - failed.keys(), problems


def job_on_this_node(job: "RankJob") -> "RankJob":
    """Return the job, with paths of this node's copy if the run is in an object store."""
    if job.url is None:
        return job
    run = mirror_folder(job.url)
    checkpoints = run / "checkpoints"
    return replace(
        job,
        run=run,
        work=checkpoints / job.work.name,
        checkpoint=checkpoints / job.checkpoint.name if job.checkpoint else None,
    )
