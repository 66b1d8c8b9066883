"""`transloom plan --address`: what a real cluster has free, who holds the rest, what it lacks."""

import json
import os
import platform
import subprocess
import sys

import pytest
import yaml
from support.cluster.processes import wait_until
from support.command import transloom
from support.recipes import tiny_values

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
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values(phrasebook)))

    def run(*overrides):
        done = transloom(
            "plan", recipe, "cluster.cpus_per_rank=1", *overrides,
            "--address", ray_head.address, "--run", tmp_path / "runs" / "a",
            "--no-measure", "--json",
            cwd=tmp_path,
            RAY_AUTH_TOKEN=ray_head.token,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout), done.returncode

    return run


def test_who_holds_what_is_told(plan, ray_head, tmp_path):
    """One head of 4 CPUs, of which another driver holds 3."""
    program = [sys.executable, "-c", HOLDS_THREE, ray_head.address]
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ray_head.token}
    driver = subprocess.Popen(
        program,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert driver.stdout.readline() == "held\n"
        found, code = plan("cluster.ranks=2")
    finally:
        driver.communicate("")
    (holder,) = found["cluster"]["holders"]
    assert holder["resources"] == {"CPU": 3}
    assert holder["driver"].endswith(f", process {driver.pid}")
    assert "-c" in holder["command"]
    (node,) = found["cluster"]["nodes"]
    assert node["python"] == platform.python_version()
    assert not node["interface"].startswith("!")
    assert abs(node["clock_ahead_seconds"]) <= node["clock_error_seconds"]  # it is the same clock
    assert (node["free"]["CPU"], node["total"]["CPU"]) == (1, 4)
    assert (found["cluster"]["room"], found["cluster"]["room_at_all"]) == (1, 4)
    (problem,) = found["problems"]  # it would wait
    assert not problem["refuses"]
    assert "there is room for 1 now (held: 3 CPU by job" in problem["problem"]
    assert code == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.yaml"]  # the probes are gone
