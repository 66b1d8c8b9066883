"""Response of the supervisor to silent data corruption that the ranks have found.

    finding                         nodes suffice without it    response
    the rank is known               yes                         leave out its node
    the rank is known               no                          restart once on the same nodes
    one of two ranks of one node    as if the rank was known
    one of two ranks of two nodes   either                      restart once on the same nodes

A restart reads all weights again, so it removes bits that flipped in memory. If a node is suspected
again in the same session, the run ends, because its results cannot be trusted.

A reproducible fault may have changed any step since the last check that passed. The ranks then
resume from a checkpoint before these steps, if the run has one.
"""

from collections.abc import Sequence

from cluster.errors import ClusterError
from cluster.supervision.attempt import RunContext
from foundation.wording import join_items
from run_store.checkpoints.commit import set_aside
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.record.corruption import CorruptionFinding


class CorruptionResponse:
    """Handler of the findings of one session, in the order in which they occur."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._suspected: set[str] = set()  # ids of nodes that an earlier finding named

    def respond(self, finding: CorruptionFinding, rank_nodes: Sequence[str]) -> None:
        """Prepare the next start of the ranks.

        Args:
            finding: the finding of the last attempt.
            rank_nodes: the id of each rank's node in that attempt.

        Raises:
            ClusterError: the run cannot continue on these nodes.
        """
        context = self._context
        nodes = {rank_nodes[rank] for rank in finding.ranks}
        names = _nodes_text(sorted(set(finding.nodes)))
        is_certain = finding.is_certain or len(nodes) == 1
        if is_certain and self._suffices_without(nodes):
            self._leave_out(finding, rank_nodes, names)
        elif nodes & self._suspected:
            raise ClusterError(
                f"{finding.text}. An earlier check of this session had found {names}, too, so the "
                f"run ends. {_remedy(is_certain)}"
            )
        else:
            self._suspected |= nodes
            reason = (
                f"silent data corruption on {names}, without which the run has too few ranks"
                if is_certain
                else f"silent data corruption on one of {names}, and it is unknown on which"
            )
            context.listener.notice(
                f"{reason}: restarting once on the same nodes, which reads all weights again"
            )
        if finding.is_reproducible:
            self._distrust_steps_after(finding.last_verified_step)

    def _leave_out(self, finding: CorruptionFinding, rank_nodes: Sequence[str], names: str) -> None:
        for rank, name in zip(finding.ranks, finding.nodes, strict=True):
            self._context.unfit.add(
                rank_nodes[rank],
                f"Node {name} has computed wrong bits in step {finding.checked_step}. Test its "
                "processor and memory before it trains again",
            )
        self._context.listener.notice(
            f"the run no longer uses {names}, because of the silent data corruption in step "
            f"{finding.checked_step}"
        )

    def _suffices_without(self, nodes: set[str]) -> bool:
        present = self._context.view.query_nodes()
        others = {node: present[node] for node in present.keys() - nodes}
        return len(self._context.supply.offer(others)) >= self._context.config.min_ranks

    def _distrust_steps_after(self, verified: int) -> None:
        """Set aside the checkpoints that a reproducible fault may have changed."""
        context = self._context
        context.memory.forget_after(verified)
        paths = list_checkpoints(context.run.checkpoints)
        later = [path for path in paths if step_of(path) > verified]
        if not later:
            return
        if verified and len(later) == len(paths):
            context.listener.notice(
                f"no checkpoint of step {verified} or before is left, so the newest one is used. "
                f"The steps since {verified} may be wrong: check them on other nodes with "
                f"`transloom replay {context.run.path} --steps {verified + 1}:{step_of(later[-1])}`"
            )
            return
        for path in later:
            aside = set_aside(path, context.lease.work)
            context.listener.notice(
                f"the checkpoint of step {step_of(path)} may be wrong, because the last check that "
                f"passed was in step {verified}; it was renamed to {aside.name}"
            )


def _nodes_text(names: Sequence[str]) -> str:
    return f"{'node' if len(names) == 1 else 'nodes'} {join_items(names)}"


def _remedy(is_certain: bool) -> str:
    test = "Test the processor and the memory of the node" if is_certain else "Test both nodes"
    return (
        f"{test}, or exclude it with cluster.node_labels. Then run the same command again. With at "
        "least three ranks on three nodes, a check names the node"
    )
