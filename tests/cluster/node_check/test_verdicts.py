"""Verdicts from figures: which nodes fail, which are only warned about, and what is said."""

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
from cluster.node_check.verdicts import compare, driver_clock_warning, suspects

GIGA = 1e9


def product(digest="aaaa", gflops=100.0, *, kind="A", device="CPU", repeatable=True):
    return ProductFigures(device, kind, f"model {kind}", "fp32", digest, repeatable, gflops * GIGA)


def node(
    name="n",
    digest="aaaa",
    gflops=100.0,
    *,
    kind="A",
    products=None,
    memory=10.0,
    disk=1000.0,
    free_disk=50.0,
    free_memory=8.0,
    free_shared=8.0,
    clock=0.0,
    error=0.001,
    link=None,
    gpus=(),
    repeatable=True,
    failure=None,
):
    """A node; speeds and sizes in GB, of the disk in MB/s."""
    mine = (product(digest, gflops, kind=kind, repeatable=repeatable),)
    return MeasuredNode(
        name,
        NodeFigures(
            products=mine if products is None else products,
            memory_bytes_per_second=memory * GIGA,
            storage={"run folder": StorageFigures(disk * 1e6, int(free_disk * GIGA))},
            free_memory_bytes=int(free_memory * GIGA),
            free_shared_memory_bytes=int(free_shared * GIGA),
            gpus=gpus,
        ),
        clock=ClockOffset(clock, error),
        failure=failure,
        link_bytes_per_second=None if link is None else link * GIGA,
    )


def gpu(**counters):
    return node(gpus=(GpuFigures("GPU 3", **counters),))


# Nodes in order; those that fail, and those that are only warned about, by their places.
CASES = {
    "one node is only timed": ([node()], "", ""),
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
    "other kinds may be slower": ([node(), node(gflops=1.0, memory=0.1, kind="B")], "", ""),
    "each kind has its minority": (
        [node(), node(), node(digest="b"), node("n", "x", kind="B"), node("n", "y", kind="B")],
        "234",
        "",
    ),
    "a node that contradicts itself needs no other": ([node(repeatable=False)], "0", ""),
    "it has no vote": ([node(), node(digest="b", repeatable=False)], "1", ""),
    "half the speed is enough": ([node(), node(gflops=50.0), node()], "", ""),
    "less is not": ([node(), node(gflops=49.9), node()], "1", ""),
    "the slower of two": ([node(), node(gflops=20.0)], "1", ""),
    "the median of the others counts, not the fastest": (
        [node(gflops=1000.0), node(), node(), node()],
        "",
        "",
    ),
    "slow memory": ([node(), node(memory=4.9), node()], "1", ""),
    "a disk of a quarter": ([node(), node(disk=150.0), node(disk=600.0)], "1", ""),
    "a disk that is fast enough": (
        [node(disk=9000.0), node(disk=250.0), node(disk=9000.0)],
        "",
        "",
    ),
    "disks of all kinds are compared": ([node(kind="A"), node(kind="B", disk=20.0)], "1", ""),
    "a slow link": ([node(link=10.0), node(link=4.0), node(link=10.0)], "1", ""),
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
    "little memory": ([node(free_memory=0.4)], "0", ""),
    "little shared memory": ([node(free_shared=0.01)], "0", ""),
    "a full disk": ([node(free_disk=0.05)], "0", ""),
    "ECC errors": ([gpu(uncorrected_errors=2)], "0", ""),
    "no ECC errors": ([gpu(uncorrected_errors=0)], "", ""),
    "a row that cannot be replaced": ([gpu(failed_remapping=True)], "0", ""),
    "an XID error": ([gpu(xid_errors=(79,))], "0", ""),
    "throttling": ([gpu(throttling=("power brake",))], "", "0"),
    "GPUs of one node are compared": (
        [node(products=tuple(product(d, device=f"GPU {n}") for n, d in enumerate("aab")))],
        "0",
        "",
    ),
    "a slow GPU among others": (
        [node(products=(product(), product(), product(gflops=10.0, device="GPU 2")))],
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
def test_verdicts(case):
    nodes, failing, warned = CASES[case]
    by_id = {str(place): measured for place, measured in enumerate(nodes)}
    assert (places(by_id, True), places(by_id, False)) == (failing, warned)


def text_of(*nodes):
    by_id = {f"{place}": replace(n, name=f"n{place}") for place, n in enumerate(nodes)}
    return [verdict.text for verdict in compare(by_id)]


def test_a_slow_node_is_named_with_its_figure_beside_the_others():
    (text,) = text_of(node(), node(gflops=20.0), node(gflops=96.0))
    assert text.startswith("Node n1 has slow matrix products (fp32) on its CPU, below 50%")
    assert text.endswith("(20 GFLOP/s; the others: 96 GFLOP/s, 100 GFLOP/s)")


def test_many_others_are_summed_up():
    (text,) = text_of(*[node(gflops=100.0 + place) for place in range(9)], node(gflops=7.0))
    assert "(7 GFLOP/s; the 9 others: 100 GFLOP/s to 108 GFLOP/s, median 104 GFLOP/s)" in text


def test_one_of_two_is_said_of_both():
    one, other = text_of(node(digest="b" * 64), node(digest="c" * 64))
    assert one.startswith("One of two computes wrongly, n0 CPU, n1 CPU: node n0 computes")
    assert f"digest {'b' * 12}, the 1 other of kind model A: {'c' * 12}" in one
    assert "node n1 computes" in other
    assert "Add a third node" in other


def test_the_minority_is_named_beside_the_majority():
    (text,) = text_of(node(digest="a" * 64), node(digest="a" * 64), node(digest="b" * 64))
    assert text.startswith("Node n2 computes other bits")
    assert f"digest {'b' * 12}, the 2 others of kind model A: {'a' * 12} (2 times)" in text


def test_a_clock_is_named_with_its_offset_and_error():
    (text,) = text_of(node(clock=61.25, error=0.002))
    assert "clock of node n0" in text
    assert "+61.25 s from the driver's clock, ± 0.002" in text


def test_the_drivers_clock_is_reported_only_if_most_nodes_agree():
    of = lambda *seconds: driver_clock_warning(  # noqa: E731
        {str(place): node(clock=second) for place, second in enumerate(seconds)}
    )
    assert of(0.0, 0.1, 60.0) is None
    assert of(60.0, 60.0) is None  # either may be wrong
    assert "driver's clock is 60.00 s behind the median of 3 nodes" in of(60.0, 60.0, 0.0)


def test_only_slow_nodes_are_measured_again():
    nodes = {"a": node(), "b": node(gflops=1.0), "c": node(digest="b"), "d": node(clock=99.0)}
    assert suspects(nodes) == {"b"}


def test_the_faster_of_two_measurements_counts_and_both_products_must_agree():
    slow, fast = node(gflops=10.0, disk=5.0).figures, node(gflops=90.0, memory=1.0).figures
    best = slow.faster(fast)
    assert best.products[0].flops_per_second == 90 * GIGA
    assert best.memory_bytes_per_second == 10 * GIGA
    assert best.storage["run folder"].bytes_per_second == 1e9
    assert best.products[0].repeatable
    assert not slow.faster(node(digest="b").figures).products[0].repeatable
