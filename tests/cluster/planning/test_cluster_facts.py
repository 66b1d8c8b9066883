"""Report whether a cluster has capacity for a run now, and at all."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.recipes import tiny_values

from cluster.planning.cluster_facts import ClusterFacts, capacity_problems
from cluster.planning.plan import Plan
from cluster.ray.cluster_view import Node
from cluster.ray.private import Holder
from cluster.recipe import Recipe
from run_store.folder import RunFolder
from transloom.cli.plan import plan_text

HOLDER = Holder("01000000", "raysubmit_x", "/runs/a", "transloom train", "10.0.0.2, process 7",
                {"CPU": 3.0, "GPU": 1.0})  # fmt: skip
NODE = Node("abcd", "10.0.0.2 (ab)", {"CPU": 1.0}, {"CPU": 4.0, "node:10.0.0.2": 1.0})
FACTS = ClusterFacts((NODE,), (HOLDER,), room=1, room_at_all=4)


def recipe(ranks):
    values = tiny_values(Path("/nowhere"))
    values["cluster"] |= {"ranks": ranks, "cpus_per_rank": 1}
    return Recipe.of(values)


def test_a_run_that_fits_has_no_capacity_problem():
    assert capacity_problems(recipe(1), FACTS) == []
    assert capacity_problems(recipe({"min": 1, "max": 4}), FACTS) == []


def test_jobs_that_use_the_missing_capacity_are_reported():
    (problem,) = capacity_problems(recipe(2), FACTS)
    assert not problem.refuses
    assert "in use: 3 CPU and 1 GPU by raysubmit_x (/runs/a; driver on 10.0.0.2" in problem.text
    assert "wait for up to 300 s" in problem.text


@pytest.mark.parametrize("ranks", [5, {"min": 5, "max": 5}])
def test_a_run_beyond_the_cluster_s_total_capacity_is_refused(ranks):
    (problem,) = capacity_problems(recipe(ranks), FACTS)
    assert problem.refuses
    assert "needs 5 ranks of 1 CPU each, but the cluster has capacity for only 4" in problem.text


def test_a_capacity_problem_shows_resources_and_node_labels():
    wanted = recipe(5)
    more = {"resources_per_rank": {"rack_a": 1.0}, "node_labels": {"pool": "train"}}
    wanted = wanted.model_copy(update={"cluster": wanted.cluster.model_copy(update=more)})
    (problem,) = capacity_problems(wanted, FACTS)
    assert "5 ranks of 1 CPU and 1 rack_a on nodes with pool=train each" in problem.text


def test_a_plan_prints_the_facts_of_the_cluster():
    leaving = replace(NODE, name="10.0.0.3 (cd)", leaves_at=1.0)
    facts = replace(FACTS, nodes=(NODE, leaving))
    plan = Plan(
        recipe(2), RunFolder(Path("runs/a")), 20, capacity_problems(recipe(2), FACTS), cluster=facts
    )
    lines = plan_text(plan).splitlines()
    assert "node         10.0.0.2 (ab): 1 of 4 CPU free" in lines
    assert "node         10.0.0.3 (cd): 1 of 4 CPU free; about to drain" in lines
    assert any(line.startswith("held         3 CPU and 1 GPU by raysubmit_x") for line in lines)
    assert "capacity     1 rank now, 4 in all" in lines
    assert lines[-2].startswith("note: The run needs 2 ranks")
    assert lines[-1] == "The run can be trained."
    assert facts.to_json()["nodes"][0]["total"] == {"CPU": 4.0}
