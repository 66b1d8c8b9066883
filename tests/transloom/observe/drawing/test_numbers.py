"""Numbers on pages: only exact values are written as 0% and 100%, and never −0."""

from support.node_program import answer_of_node, named_modules

CASES = {
    "formatPercent(0)": "0.00%",
    "formatPercent(1e-9)": "< 0.01%",
    "formatPercent(0.000051)": "0.01%",
    "formatPercent(0.5)": "50.00%",
    "formatPercent(0.9999)": "99.99%",
    "formatPercent(0.999999)": "> 99.99%",
    "formatPercent(1)": "100.00%",
    "formatNumber(-0.0001)": "0.00",
    "formatNumber(-0)": "0.00",
    "formatNumber(-1.5)": "−1.50",
    "formatNumber(0.25, 1)": "0.3",
    "formatNumber(-Infinity)": "−∞",
    "shortNumber(0.0449, 2)": ".04",
    "shortNumber(0.0049, 2)": "·",
    "shortNumber(-0.3, 1)": "−.3",
    "shortNumber(1, 2)": "1.00",
    "formatPrecise(-0)": "0.0000",
    "formatPrecise(-0.00001)": "−1.00e−5",
    "formatPrecise(-Infinity)": "−∞",
    'counted(1, "piece")': "1 piece",
    'counted(1200, "piece")': "1,200 pieces",
}
PROGRAM = """
const fs = require("node:fs");
const asked = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
const answers = asked.map((one) => new Function(`return ${one}`)());
fs.writeFileSync(process.argv[3], JSON.stringify(answers));
"""


def test_numbers_are_formatted_without_false_0_or_100_percent(tmp_path):
    code = named_modules("drawing/numbers.js") + PROGRAM
    assert answer_of_node(code, list(CASES), tmp_path) == list(CASES.values())
