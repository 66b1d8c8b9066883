"""Verdicts from measured figures: nodes that fail, nodes with a warning, and the messages."""

from dataclasses import replace

import pytest

from cluster.node_check.figures import (
    ClockOffset,
    GpuFigures,
    MeasuredNode,
    NodeFigures,
    ProductFigures,
    StorageFigures,
)
from cluster.node_check.verdicts import compare, driver_clock_warning, slow_links

GIGA = 1e9


def product(digest="aaaa", *, kind="A", device="CPU", repeatable=True):
    return ProductFigures(device, kind, f"model {kind}", "fp32", digest, repeatable)


def node(
    name="n",
    digest="aaaa",
    *,
    kind="A",
    products=None,
    free_disk=50.0,
    clock=0.0,
    error=0.001,
    link=None,
    gpus=(),
    repeatable=True,
    problem=None,
    failure=None,
):
    """Return a measured node; speeds and sizes are in GB."""
    mine = (product(digest, kind=kind, repeatable=repeatable),)
    return MeasuredNode(
        name,
        NodeFigures(
            products=mine if products is None else products,
            storage={"run folder": StorageFigures(int(free_disk * GIGA), problem)},
            gpus=gpus,
        ),
        clock=ClockOffset(clock, error),
        failure=failure,
        link_bytes_per_second=None if link is None else link * GIGA,
    )


def gpu(**counters):
    return node(gpus=(GpuFigures("GPU 3", **counters),))


# Each case: the nodes; the indices of nodes that fail; the indices of nodes with only a warning.
CASES = {
    "one node is compared with nobody": ([node()], "", ""),
    "equal nodes": ([node(), node(), node()], "", ""),
    "the minority of three": ([node(), node(digest="b"), node()], "1", ""),
    "each of two": ([node(), node(digest="b")], "01", ""),
    "no majority of four": ([node(), node(), node(digest="b"), node(digest="b")], "0123", ""),
    "no majority of three": ([node(), node(digest="b"), node(digest="c")], "012", ""),
    "a majority beside two single ones": (
        [node(), node(digest="b"), node(), node(digest="c"), node()],
        "13",
        "",
    ),
    "other kinds may differ": ([node(), node(digest="b", kind="B")], "", ""),
    "each kind has its minority": (
        [node(), node(), node(digest="b"), node("n", "x", kind="B"), node("n", "y", kind="B")],
        "234",
        "",
    ),
    "a node that contradicts itself needs no other": ([node(repeatable=False)], "0", ""),
    "it has no vote": ([node(), node(digest="b", repeatable=False)], "1", ""),
    "half the speed is enough": ([node(link=10.0), node(link=5.0), node(link=10.0)], "", ""),
    "less is not": ([node(link=10.0), node(link=4.9), node(link=10.0)], "1", ""),
    "the slower of two": ([node(link=10.0), node(link=2.0)], "1", ""),
    "the median of the others counts, not the fastest": (
        [node(link=100.0), node(link=10.0), node(link=10.0), node(link=10.0)],
        "",
        "",
    ),
    "a clock of less than a second": ([node(clock=0.9)], "", ""),
    "a clock of seconds": ([node(), node(clock=-3.0)], "", "1"),
    "a clock of a minute": ([node(), node(clock=60.0)], "1", ""),
    "a clock that may be right": ([node(clock=6.0, error=5.5)], "", ""),
    "a clock that is wrong within its error": ([node(clock=6.0, error=0.9)], "0", ""),
    "the driver's clock": ([node(clock=60.0), node(clock=60.1), node(clock=59.9)], "", ""),
    "a clock beside the driver's": (
        [node(clock=60.0), node(clock=60.0), node(clock=60.0), node(clock=0.0)],
        "3",
        "",
    ),
    "a full disk": ([node(free_disk=0.05)], "0", ""),
    "a disk that cannot be written": ([node(problem="Read-only file system")], "0", ""),
    "ECC errors": ([gpu(uncorrected_errors=2)], "0", ""),
    "no ECC errors": ([gpu(uncorrected_errors=0)], "", ""),
    "a row that cannot be replaced": ([gpu(failed_remapping=True)], "0", ""),
    "an XID error": ([gpu(xid_errors=(79,))], "0", ""),
    "GPUs of one node are compared": (
        [node(products=tuple(product(d, device=f"GPU {n}") for n, d in enumerate("aab")))],
        "0",
        "",
    ),
    "a node without figures": (
        [node(), MeasuredNode("n", failure="no answer within 30 s"), node()],
        "1",
        "",
    ),
}


def places(nodes, fails):
    failing = {verdict.node for verdict in compare(nodes) if verdict.fails}
    warned = {verdict.node for verdict in compare(nodes)} - failing
    return "".join(sorted(failing if fails else warned))


@pytest.mark.parametrize("case", CASES)
def test_each_case_gives_these_failures_and_warnings(case):
    nodes, failing, warned = CASES[case]
    by_id = {str(place): measured for place, measured in enumerate(nodes)}
    assert (places(by_id, True), places(by_id, False)) == (failing, warned)


def text_of(*nodes):
    by_id = {f"{place}": replace(n, name=f"n{place}") for place, n in enumerate(nodes)}
    return [verdict.text for verdict in compare(by_id)]


def test_a_node_with_slow_links_is_named_with_all_figures():
    (text,) = text_of(node(link=10.0), node(link=2.0), node(link=12.0))
    assert text.startswith("Node n1 has slow links to its neighbours, below 50%")
    assert text.endswith("(2.00 GB/s; the median of 2 others: 11.0 GB/s)")


def test_two_nodes_that_differ_are_both_named_with_advice_to_add_a_third():
    one, other = text_of(node(digest="b" * 64), node(digest="c" * 64))
    assert one.startswith("Node n0 computes other bits")
    assert f"digest {'b' * 12}, the 1 other of kind model A: {'c' * 12}" in one
    assert "Node n1 computes" in other
    assert "There is no majority: test all nodes of the kind, or add one" in other


def test_the_minority_is_named_with_the_digest_of_the_majority():
    (text,) = text_of(node(digest="a" * 64), node(digest="a" * 64), node(digest="b" * 64))
    assert text.startswith("Node n2 computes other bits")
    assert f"digest {'b' * 12}, the 2 others of kind model A: {'a' * 12} (2 times)" in text


def test_a_wrong_clock_is_named_with_its_offset_and_error():
    (text,) = text_of(node(clock=61.25, error=0.002))
    assert "clock of node n0" in text
    assert "+61.25 s from the driver's clock, ± 0.002" in text


def test_the_drivers_clock_is_reported_only_if_most_nodes_agree():
    of = lambda *seconds: driver_clock_warning(  # noqa: E731
        {str(place): node(clock=second) for place, second in enumerate(seconds)}
    )
    assert of(0.0, 0.1, 60.0) is None
    assert of(60.0, 60.0) is None  # either clock may be wrong
    assert "driver's clock is 60.00 s behind the median of the nodes" in of(60.0, 60.0, 0.0)


def test_only_nodes_with_slow_links_are_measured_again():
    nodes = {
        "a": node(link=10.0),
        "b": node(link=1.0),
        "c": node(digest="b", link=10.0),
        "d": node(clock=99.0, link=10.0),
    }
    assert [verdict.node for verdict in slow_links(nodes)] == ["b"]
