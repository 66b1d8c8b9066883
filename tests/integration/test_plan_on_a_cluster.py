"""`transloom plan --address`: free resources of a real cluster, their users, and what it lacks."""

import pytest
from support.cluster.processes import wait_until
from support.command import started_python
from support.recipes import tiny_values, write_yaml

from cluster.planning.plan import PlanOptions, make_plan
from transloom.cli.train_run import recipe_and_run

HOLDS_THREE = """
import sys, ray
from ray.util.placement_group import placement_group
ray.init(address=sys.argv[1], log_to_driver=False)
group = placement_group([{"CPU": 1}, {"CPU": 2}], name="held")
assert group.wait(60)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def plan(ray_head, phrasebook, tmp_path):
    wait_until(ray_head.is_alone)
    recipe = write_yaml(tmp_path / "tiny.yaml", tiny_values(phrasebook))

    def run(*overrides):
        loaded, folder = recipe_and_run(
            str(recipe),
            ["cluster.cpus_per_rank=1", *overrides],
            tmp_path / "runs" / "a",
            ray_head.address,
        )
        return make_plan(loaded, folder, PlanOptions(), print).to_json()

    return run


def test_a_plan_names_the_users_of_resources(plan, ray_head, tmp_path):
    """Another driver has taken 3 of the head's 4 CPUs."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ray_head.token}
    driver = started_python(HOLDS_THREE, ray_head.address, **token)
    try:
        assert driver.stdout.readline() == "held\n"
        found = plan("cluster.ranks=2")
    finally:
        driver.communicate("")
    (holder,) = found["cluster"]["holders"]
    assert holder["resources"] == {"CPU": 3}
    assert holder["driver"].endswith(f", process {driver.pid}")
    assert "-c" in holder["command"]
    (node,) = found["cluster"]["nodes"]
    assert (node["free"]["CPU"], node["total"]["CPU"]) == (1, 4)
    assert (found["cluster"]["room"], found["cluster"]["room_at_all"]) == (1, 4)
    assert found["cluster"]["target"] == 0
    (problem,) = found["problems"]  # the run would wait
    assert not problem["refuses"]
    assert "free capacity for only 1 (in use: 3 CPU by job" in problem["problem"]
    assert found["trainable"]
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.yaml"]
