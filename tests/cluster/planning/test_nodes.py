"""What a node lacks for a run: one line each, with both values and the remedy."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ray import cloudpickle

from cluster.package_files import PACKAGES
from cluster.packages import INSTALLATION
from cluster.planning.node_probe import NodeProbe, code_of
from cluster.planning.nodes import NodeFacts, facts_of_this_machine, node_problems, pickled_by_value

HERE = facts_of_this_machine()
RUN = Path("/shared/runs/a")
GOOD = replace(HERE, name="10.0.0.2 (abc)", interface="eth0", manifest="f" * 64)


def told(node: NodeFacts, *, alone: bool = False) -> list[str]:
    return [p.text for p in node_problems(node, HERE, RUN, "f" * 64, alone=alone)]


def test_nothing_is_wrong_with_a_node_that_is_as_this_one():
    assert told(GOOD) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "3.9.1"}, ["Python 3.9.1", "this machine has 3."]),
        ({"versions": {**HERE.versions, "torch": "1.13.0"}}, ["torch 1.13.0", "same lock"]),
        ({"versions": {**HERE.versions, "ray": None}}, ["no ray", "Install"]),
        ({"code": None}, [f"no transloom at {INSTALLATION}", "same path"]),
        ({"code": "0" * 64}, ["another transloom", "000000000000…", str(HERE.code)[:12]]),
        ({"folder": "No such file or directory"}, [str(RUN), "No such file", "--run PATH"]),
        ({"manifest": "!No such file or directory"}, ["dataset", "No such file", "ffff…"]),
        ({"manifest": "e" * 64}, ["its manifest is eeee", "expected manifest ffff"]),
        ({"interface": "!none has 10.0.0.2"}, ["no network interface", "none has 10.0.0.2"]),
        ({"skew_seconds": -7.5}, ["7.5 s behind", "1 s", "chrony"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_difference_is_one_line_with_both_values(change, said):
    (text,) = told(replace(GOOD, **change))
    assert text.count("\n") == 0
    assert all(part in text for part in ("10.0.0.2 (abc)", *said)), text


def test_a_clock_that_may_be_right_is_not_told():
    assert told(replace(GOOD, skew_seconds=7.5, skew_error_seconds=7.0)) == []


def test_a_cluster_of_one_node_needs_no_network():
    assert told(replace(GOOD, interface="!none"), alone=True) == []


def test_a_node_says_what_it_has(tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    (tmp_path / "left").touch()
    asked = {
        "installation": str(INSTALLATION),
        "folder": str(tmp_path),
        "left": "left",
        "answer": "answer",
        "manifest": str(manifest),
        "address": "127.0.0.1",
        "gpu": False,
    }
    said = NodeProbe().collect(asked)
    assert said["code"] == HERE.code
    assert said["folder"] is None
    assert (tmp_path / "answer").exists()
    assert said["manifest"] == hashlib.sha256(b"{}").hexdigest()
    assert said["interface"] == "lo"
    elsewhere = NodeProbe().collect(
        asked | {"folder": str(tmp_path / "other"), "manifest": str(tmp_path / "none"),
                 "address": "203.0.113.7"}
    )  # fmt: skip
    assert elsewhere["folder"] == "No such file or directory"
    assert elsewhere["manifest"] == "!No such file or directory"
    assert "203.0.113.7" in elsewhere["interface"]


def test_a_node_without_transloom_can_be_asked(tmp_path):
    """The probe travels by value, as Ray sends it, into a Python that has none of our packages."""
    with pickled_by_value():
        sent = cloudpickle.dumps(NodeProbe)
    program = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' in p or 'lib' in p];"
        "from ray import cloudpickle; probe = cloudpickle.loads(sys.stdin.buffer.read())();"
        f"print(probe.collect({{'installation': {str(tmp_path)!r}, 'folder': '/nowhere',"
        " 'left': 'a', 'answer': 'b', 'manifest': None, 'address': '127.0.0.1',"
        " 'gpu': False})['code'], 'cluster' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], input=sent, capture_output=True, check=False
    )
    assert done.stdout == b"None False\n", done.stderr


def test_the_sources_are_compared_whatever_their_version(tmp_path):
    assert code_of(tmp_path) is None
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    before = code_of(tmp_path)
    (tmp_path / "model" / "__init__.py").write_text("x = 1\n")
    assert code_of(tmp_path) not in (None, before)
