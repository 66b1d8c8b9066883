"""The node check on a cluster of several nodes on this machine, some of them with faults.

The environment of a node sets its faults: see support/faults/site.
"""

import json
import re

import pytest
from support.cluster.processes import wait_until

from cluster.errors import ClusterError
from cluster.planning.plan import PlanOptions, make_plan
from run_store.record.run_status import run_status_of
from transloom.cli.plan import plan_text
from transloom.cli.train_run import recipe_and_run

OPTIONS = [
    "cluster.cpus_per_rank=1",
    "cluster.placement=spread",
    "cluster.node_check=quick",
    "trainer.max_steps=3",
]
# Faults of a node, and patterns of the messages that name them with figures.
FAULTS = {
    "wrong-bits": r"computes other bits .* digest \w{12}, the \d others of kind .*: \w{12} \(",
    "full-disk": r"has too little free storage of the run folder .* \(1\.0 MB free, at least ",
    "wrong-clock": r"is wrong\..* \(\+(59|60)\.\d\d s from the driver's clock, ± 0\.\d+; at most",
}


@pytest.fixture(scope="module")
def cluster(ray_head):
    """Yield a function that starts nodes of two CPUs with given faults and returns their ids."""
    nodes = []

    def start(*wrong):
        found = []
        for fault in wrong:
            before = ray_head.alive_nodes()
            nodes.append(ray_head.add_node(2, environment={"TRANSLOOM_SICK_NODE": fault}))
            (new,) = ray_head.alive_nodes() - before
            found.append(new[:8])
        return found

    wait_until(ray_head.is_alone)
    yield start
    for node in nodes:
        node.kill()
    wait_until(ray_head.is_alone)


@pytest.fixture(scope="module")
def pair(cluster):
    """Return the ids of a healthy node and of a node with all faults."""
    return cluster("", " ".join(FAULTS))


def problems_of(log, node):
    """Return the notices that exclude a node."""
    lines = [line for line in log.split("\n") if node in line]
    return [
        line for line in lines if line.endswith("The run does not use this node in this session")
    ]


def test_a_node_with_faults_is_named_with_its_figures_and_gets_no_ranks(runs, pair, notified):
    healthy, sick = pair
    setting, received = notified
    runs.train("run", *OPTIONS, "cluster.ranks={min: 2, max: 3}", setting)
    messages = [json.loads(line)["text"] for line in received.read_text().splitlines()]
    log = runs.log("run")
    problems = problems_of(log, sick)
    for fault, pattern in FAULTS.items():
        assert [problem for problem in problems if re.search(pattern, problem)], (fault, log)
    assert problems_of(log, healthy) == []
    assert re.search(r"quick check of 3 nodes in \d+\.\d s: 1 unfit", log)
    assert re.search(rf"detail: .*{sick}.* unfit", log)
    places = run_status_of(runs.folder / "run").nodes
    assert sorted(places.values()) == [1, 2]
    assert not any(sick in name for name in places)
    assert len(runs.lines("run")) == 3
    assert any(sick in text and "leaves out a node" in text for text in messages)
    unfit = run_status_of(runs.folder / "run").vitals.unfit_nodes
    assert [sick in text for text in unfit] == [True]


@pytest.mark.long
def test_a_run_with_too_few_fit_nodes_ends_with_their_figures_and_the_remedy(runs, pair):
    with pytest.raises(ClusterError) as error:
        runs.train("few", *OPTIONS, "cluster.ranks=4", "cluster.cpus_per_rank=2")
    text = str(error.value)
    assert pair[1] in text
    for pattern in FAULTS.values():
        assert re.search(pattern, text)
    assert text.endswith(
        "but the run needs at least 4. Repair or replace the nodes, lower cluster.ranks, or train "
        "on all nodes regardless with cluster.node_check=off"
    )


@pytest.mark.long
def test_a_plan_shows_the_figures_of_all_nodes(runs, pair, ray_head):
    healthy, sick = pair
    overrides = ["cluster.cpus_per_rank=1", "cluster.ranks={min: 2, max: 3}"]
    options = PlanOptions(measured=False, check_nodes=True)
    made = recipe_and_run(str(runs.recipe), overrides, runs.folder / "p", ray_head.address)
    plan = make_plan(*made, options, print)
    text = plan_text(plan)
    assert plan.trainable
    report = json.loads(json.dumps(plan.to_json()))["node_check"]
    assert report["level"] == "full"
    fit = {node["name"]: node["fit"] for node in report["nodes"]}
    assert len(fit) == 3
    assert [name for name in fit if not fit[name]] == [name for name in fit if sick in name]
    for pattern in FAULTS.values():
        assert re.search(rf"note: .*{sick}.*{pattern}", text)
    rows = [line for line in text.split("\n") if line.startswith("  ")]
    assert rows[0].split() == ["node", "free", "disk", "network", "clock", "result"]
    assert [row.split()[-1] for row in rows[1:4] if healthy in row] == ["fit"]
    assert max(map(len, rows)) <= 100


@pytest.mark.long
def test_each_fault_is_named_on_its_node(runs, cluster, pair):
    """The cluster has three nodes with one fault each, two healthy nodes, and the faulty one of
    `pair`.
    """
    sick = dict(zip(FAULTS, cluster(*FAULTS), strict=True))
    runs.train(
        "each", *OPTIONS, "cluster.ranks={min: 2, max: 6}", "batching.micro_batches_per_step=6"
    )
    log = runs.log("each")
    for fault, node in sick.items():
        problems = problems_of(log, node)
        assert problems, (fault, log)
        own = FAULTS[fault]
        assert all(re.search(own, problem) or "temporary" in problem for problem in problems)
    places = run_status_of(runs.folder / "each").nodes
    assert len(places) == 2
