"""Steps of a run whose state is in the memory of its nodes.

    a rank has written its file ──▶ the next node copies it ──▶ all files and copies: held
    ranks are lost ──▶ newest step whose files are all on living nodes ──▶ MemoryCheckpoint

The nodes of the ranks form a ring in which each node copies the files of the node before it. So the
run survives the loss of one node, or of several nodes that are not neighbours. With a single node
there are no copies, and the files survive the loss of ranks. The tier lasts as long as the session
of Ray: after a loss of the driver, the run restarts from the disk.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.ranks.node_memory import MemoryCheckpoint, PendingCopy, StoredFile, next_nodes
from cluster.ranks.rank_pool import RankPool
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.errors import CheckpointError

# Number of consecutive starts from memory checkpoints after which the ranks were lost before they
# trained a step. The next start is from the disk.
MAX_FAILED_STARTS = 2


@dataclass
class _Step:
    """Files of one step that have been reported so far.

    Attributes:
        attempt: the attempt that saved the step.
        ranks: the number of ranks of that attempt.
        files: for each rank its file, and then the copy of it.
        copies: the copies in progress, by rank.
        failed: whether a rank or a copy failed, so that the step will never be complete.
    """

    attempt: str
    ranks: int
    header: CheckpointHeader | None = None
    files: dict[int, list[StoredFile]] = field(default_factory=dict)
    copies: dict[int, PendingCopy] = field(default_factory=dict)
    failed: bool = False


class MemoryTier:
    """Table of the steps in the nodes' memory, kept by the supervisor."""

    def __init__(self, supply: RankPool, notice: Callable[[str], None]) -> None:
        self.name = secrets.token_hex(8)
        self._supply = supply
        self._notice = notice
        self._attempt = ""
        self._nodes: list[str] = []  # node of each rank of the attempt
        self._steps: dict[int, _Step] = {}
        self._reported = MemorySteps()
        self._failed_starts = 0
        self._copy_failure_reported = False

    def newest(self, after: int, alive: Callable[[set[str]], set[str]]) -> MemoryCheckpoint | None:
        """Return the newest step whose files are all available on living nodes, or None.

        Args:
            after: the step of the newest checkpoint on disk; only later steps are returned.
            alive: returns those of the given nodes that are alive.
        """
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._notice("the ranks do not start from memory: the checkpoint on disk is used")
            self._steps.clear()
            self._failed_starts = 0
        nodes = {f.node for step in self._steps.values() for fs in step.files.values() for f in fs}
        living = alive(nodes) if nodes else set()
        for number, step in sorted(self._steps.items(), reverse=True):
            found = [
                next((file for file in step.files[rank] if file.node in living), None)
                for rank in sorted(step.files)
            ]
            if number > after and self._is_written(step) and all(found):
                assert step.header is not None
                return MemoryCheckpoint(step.header, tuple(file for file in found if file))
        return None

    def begin_attempt(
        self, attempt: str, nodes: Sequence[str], restored: MemoryCheckpoint | None
    ) -> str | None:
        """Prepare the nodes for an attempt, and forget all steps but the restored one.

        Args:
            attempt: the name of the attempt.
            nodes: the node of each rank.
            restored: the state from which the attempt starts, or None.

        Returns:
            The name of the run's folders in memory, or None if a node has none.
        """
        self._attempt, self._nodes = attempt, list(nodes)
        kept = restored.step if restored else None
        self._steps = {number: step for number, step in self._steps.items() if number == kept}
        self._failed_starts += bool(restored)
        self._reported = MemorySteps()
        if problems := self._supply.open_memory(self.name):
            self._notice(f"memory checkpoints are off: {'; '.join(problems)}")
            return None
        self._supply.keep_attempts([attempt, *{step.attempt for step in self._steps.values()}])
        return self.name

    def step_trained(self) -> None:
        """Record that the ranks have trained a step since their start."""
        self._failed_starts = 0

    def drop(self) -> None:
        """Forget all steps, because the restored one is damaged."""
        self._steps.clear()

    def forget_after(self, step: int) -> None:
        """Forget the steps after this one, because they may be wrong."""
        for later in [number for number in self._steps if number > step]:
            del self._steps[later]

    def written(self, rank: int, file: MemoryFile, header: CheckpointHeader) -> None:
        """Record a rank's file, and have its node's neighbour copy it."""
        if header.step <= self._reported.settled:
            return  # another rank has no file of that step
        step = self._step(header.step)
        if step.failed:
            return
        step.header = header
        node = self._nodes[rank]
        step.files[rank] = [self._supply.stored_file(file, node)]
        neighbour = next_nodes(self._nodes).get(node)
        if neighbour:
            step.copies[rank] = self._supply.copy_memory(file, node, neighbour)

    def failed(self, step: int) -> None:
        """Record that a rank has no file of a step."""
        if step > self._reported.settled:
            self._step(step).failed = True

    def poll(self) -> MemorySteps | None:
        """Collect finished copies; return the progress for the ranks if it has changed."""
        for step in self._steps.values():
            self._collect_copies(step)
        ours = {n: step for n, step in self._steps.items() if step.attempt == self._attempt}
        held = max((n for n, step in ours.items() if self._is_held(step)), default=0)
        settled = self._reported.settled
        for number, step in sorted(ours.items()):
            if not (self._is_held(step) or step.failed):
                break
            settled = max(settled, number)
        steps = MemorySteps(max(held, self._reported.held), settled)
        if steps == self._reported:
            return None
        replaced = any(step.attempt != self._attempt for step in self._steps.values())
        if replaced and steps.held > self._reported.held:
            self._supply.keep_attempts([self._attempt])
        self._steps = {
            n: step
            for n, step in self._steps.items()
            if n >= steps.held and not (step.failed and n <= steps.settled)
        }
        self._reported = steps
        return steps

    def _step(self, number: int) -> _Step:
        return self._steps.setdefault(number, _Step(self._attempt, len(self._nodes)))

    def _is_written(self, step: _Step) -> bool:
        """Return whether every rank that saved the step has reported its file."""
        return not step.failed and len(step.files) == step.ranks

    def _is_held(self, step: _Step) -> bool:
        return self._is_written(step) and not step.copies

    def _collect_copies(self, step: _Step) -> None:
        for rank, copy in list(step.copies.items()):
            try:
                copied = copy.poll()
            except CheckpointError as error:
                step.failed = True
                copied = None
                del step.copies[rank]
                if not self._copy_failure_reported:
                    self._copy_failure_reported = True
                    self._notice(str(error))
            if copied:
                del step.copies[rank]
                step.files[rank].append(copied)
