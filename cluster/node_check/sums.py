"""Find the node with which sums over nodes are wrong: a pure function of tests of groups of nodes.

    all nodes ──wrong──▶ halves, while one of two is wrong ──▶ all pairs of the rest ──▶ WrongSums

A node is at fault if it is in every pair whose sums are wrong. If there is one such pair, either of
its nodes or the link between them is at fault.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.node_check.verdicts import NodeVerdict
from foundation.wording import counted, join_items

Pair = tuple[str, str]
# Adds known numbers over each of some groups without common nodes; returns which sums are right.
SumsTest = Callable[[Sequence[Sequence[str]]], Sequence[bool]]
FEWEST = 3  # number of nodes with which a pair that is wrong tells its nodes apart


@dataclass(frozen=True)
class WrongSums:
    """Sums over nodes that were wrong.

    Attributes:
        pairs: the pairs of nodes whose sums were wrong, too.
        right_pairs: the number of tested pairs whose sums were right.
    """

    pairs: tuple[Pair, ...]
    right_pairs: int

    @property
    def faulty(self) -> str | None:
        """The node that every wrong pair contains; None if no node or more than one does."""
        common = set.intersection(*map(set, self.pairs)) if self.pairs else set[str]()
        return common.pop() if len(common) == 1 else None


@dataclass(frozen=True)
class SumsReport:
    """Result of a check of sums over nodes.

    Attributes:
        text: the result in a sentence, without a full stop.
        verdict: the problem of the node at fault; None if there is none, or if it is unknown.
    """

    text: str
    verdict: NodeVerdict | None = None


def find_wrong_sums(nodes: Sequence[str], are_right: SumsTest) -> WrongSums | None:
    """Return the pairs of nodes whose sums are wrong; None if the sums over all nodes are right.

    Args:
        nodes: at least two nodes.
        are_right: tests groups of nodes.
    """
    if all(are_right([nodes])):
        return None
    group = list(nodes)
    while len(group) > FEWEST:
        halves = [group[: len(group) // 2], group[len(group) // 2 :]]
        wrong = [half for half, right in zip(halves, are_right(halves), strict=True) if not right]
        if len(wrong) != 1:  # the fault is between the halves, or in both
            break
        (group,) = wrong
    group += [node for node in nodes if node not in group][: max(0, FEWEST - len(group))]
    found = [
        (pair, right)
        for pairs in rounds_of_pairs(group)
        for pair, right in zip(pairs, are_right(pairs), strict=True)
    ]
    return WrongSums(
        tuple(pair for pair, right in found if not right), sum(right for _, right in found)
    )


def rounds_of_pairs(nodes: Sequence[str]) -> Iterator[list[Pair]]:
    """Yield all pairs, in rounds in which a node is in at most one pair."""
    places: list[str | None] = [*nodes, None] if len(nodes) % 2 else [*nodes]
    for _ in range(len(places) - 1):
        half = len(places) // 2
        facing = zip(places[:half], reversed(places[half:]), strict=True)
        yield [(one, other) for one, other in facing if one is not None and other is not None]
        places.insert(1, places.pop())


def sums_report(found: WrongSums | None, names: Mapping[str, str]) -> SumsReport:
    """Describe the result of `find_wrong_sums`.

    Args:
        names: the name of each node in messages, by its id.
    """
    all_nodes = f"sums of known numbers over {counted(len(names), 'node')}"
    if found is None:
        return SumsReport(f"{all_nodes} are right, so no node is left out")
    pairs = [join_items(sorted(names[node] for node in pair)) for pair in found.pairs]
    if (node := found.faulty) is not None:
        verdict = NodeVerdict(
            node,
            f"Node {names[node]} takes part in all sums of known numbers that are wrong. Test its "
            "memory and its network interface",
            f"wrong in {counted(len(pairs), 'pair')} of nodes, right in {found.right_pairs}",
        )
        return SumsReport(verdict.text, verdict)
    where = f", and those of the pairs {'; '.join(pairs)}" if pairs else ", but those of no pair"
    return SumsReport(
        f"{all_nodes} are wrong{where}. It is unknown which node is at fault, so none is left out. "
        "Test the nodes and the network between them"
    )
