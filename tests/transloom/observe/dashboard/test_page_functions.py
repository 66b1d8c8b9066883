"""Functions of the dashboard's page, evaluated by Node: filters, series, words and addresses."""

import json

import pytest
from support.node_program import EVALUATE, answer_of_node, dashboard_modules

ROWS = [
    {
        "id": name,
        "standing": {
            "name": name,
            "state": state,
            "step": step,
            "job_owner": owner,
            "settings": settings,
            "scores": {"bleu": {"value": bleu}},
            "best": {"bleu": {"value": 31}},
            "numbers": {"loss": 0.5},
        },
    }
    for name, state, step, owner, settings, bleu in [
        ("de-en", "training", 100, "ann", {"model.width": 256, "task": "translation"}, 30),
        ("fr-en", "finished", 900, None, {"model.width": 512}, 30.5),
        ("lm", "finished", 950, None, {"model.width": 512, "task": "causal_lm"}, None),
    ]
]
SET_UP = f"""
const rows = {json.dumps(ROWS)};
globalThis.found = (text) => rows.filter((row) => fits(row, parseFilter(text))).map(({{ id }}) => id);
globalThis.inOrder = (order) => sorted(rows, order).map(({{ id }}) => id);
globalThis.rows = rows;
globalThis.again = (view) => parseView(writeView({{ ...newView(), ...view }}));
globalThis.appended = (columns, newer) => [append(columns, newer), columns];
"""
FILTERS = {
    'found("")': ["de-en", "fr-en", "lm"],
    'found("EN")': ["de-en", "fr-en"],
    'found("state:train")': ["de-en"],
    'found("state=train")': [],
    'found("bleu>30")': ["fr-en"],
    'found("bleu>=30")': ["de-en", "fr-en"],
    'found("bleu<30.5")': ["de-en"],
    'found("bleu<=30.5 name:en")': ["de-en", "fr-en"],
    'found("bleu!=30")': ["fr-en", "lm"],
    'found("width=256")': ["de-en"],
    'found("model.width!=256")': ["fr-en", "lm"],
    'found("owner=ann")': ["de-en"],
    'found("loss<0.6 best.bleu=31")': ["de-en", "fr-en", "lm"],
    "found('\"state:x\"')": [],
    'unknownFields(rows, parseFilter("widht=3 width=3 bleu>1"))': ["widht"],
    'inOrder("")': ["de-en", "fr-en", "lm"],
    'inOrder("bleu")': ["de-en", "fr-en", "lm"],
    'inOrder("-bleu")': ["fr-en", "de-en", "lm"],
    'inOrder("-name")': ["lm", "fr-en", "de-en"],
    "firstChoice(rows, [], 5)": ["de-en", "fr-en"],
    'firstChoice(rows, ["lm"], 5)': ["lm"],
    'firstChoice(rows, ["fr-en"], 1)': ["fr-en"],
    "firstChoice([], [], 5)": [],
    "differences(rows.slice(1))": [{"key": "task", "values": [None, "causal_lm"]}],
}
SERIES = {
    'xs({ step: [1, 2], target_tokens_seen: [5, 9] }, "tokens")': [5, 9],
    'xs({ step: [1, 2], wall_seconds: [null, 7200] }, "hours")': [None, 2],
    'xs({ step: [1, 2], time: [3600, 7200], wall_seconds: [null, null] }, "hours")': [0, 1],
    'xs({ step: [1, 2], counted_seconds: [1800, 3600] }, "effective")': [0.5, 1],
    'xAtStep({ step: [2, 4], target_tokens_seen: [10, 30] }, "tokens", 3)': 20,
    'xAtStep({ step: [2, 4], target_tokens_seen: [10, 30] }, "tokens", 9)': 30,
    'xAtStep({ step: [2, 4], target_tokens_seen: [10, 30] }, "tokens", 1)': 10,
    'xAtStep({ step: [2, 4], target_tokens_seen: [null, 30] }, "tokens", 3)': 30,
    'stepAtX({ step: [2, 4], target_tokens_seen: [10, 30] }, "tokens", 24)': 3,
    'stepAtX({ step: [], target_tokens_seen: [] }, "tokens", 24)': None,
    "[firstFrom([1, 3, 3, 5], 3), firstFrom([1, 3], 4), firstFrom([], 1)]": [1, 2, 0],
    "[nearest([1, 3], 2), nearest([1, 3], 2.1), nearest([1, 3], 9), nearest([1, 3], 0)]": [
        *(0, 1, 1, 0)
    ],
    "smoothed([1, null, 3], 0.5)": [1, None, pytest.approx(7 / 3)],
    "smoothed([1, null, 3], 0)": [1, None, 3],
    "positive([-1, 0, 2, null])": [None, None, 2, None],
    "appended({ step: [1, 2], loss_min: [9, 8] }, { step: [2, 3, 4], loss: [7, 6, 5] })": [
        2,
        {"step": [1, 2, 3, 4], "loss_min": [9, 8, 6, 5]},
    ],
    "appended({ step: [], loss: [] }, { step: [1], time: [7] })": [1, {"step": [1], "loss": [None]}],
    "scorePoints([{ step: 1, scores: {} }, { step: 2, scores: { bleu: { value: 0 } } }], 'bleu')": [
        {"step": 2, "value": 0}
    ],
    "readable([0, 1, 2, 3, 4, 5, 6], 3)": [0, 3, 6],
    "readable([0, 1, 2], 3)": [0, 1, 2],
    "lonely([1, null, 2, 3, undefined, null, 4])": [0, 6],
    "[widened([3, 3]), widened([3, 4]), widened(null)]": [[2.5, 3.5], [3, 4], None],
    "[extent([2, null, NaN, -1]), extent([null])]": [[-1, 2], None],
}
WORDS = {
    "[1234.5, 123.45, 12.345, 1.23456, 0.123456].map(number)": [
        *("1,235", "123.5", "12.35", "1.235", "0.1235")
    ],
    "[0, -0.00001, 1e9, 12345, Infinity, -Infinity, NaN, null].map(number)": [
        *("0", "−1e−5", "1e9", "12,345", "∞", "−∞", "–", "–")
    ],
    "[9999, 10000, 1234567, -25000, 1e9].map(short)": ["9,999", "10k", "1.235M", "−25k", "1e9"],
    "[stepsOf(5, 0), stepsOf(5, 9), stepsOf(9, 9), stepsOf(10, 9)]": [
        *("5", "5 of 9", "9 of 9", "10 (max_steps is 9)")
    ],
    "[0, 59.6, 3600, 3661, 90061, null, -4].map(span)": [
        *("0 s", "1 min", "1 h", "1 h 1 min", "1 d 1 h", "", "0 s")
    ],
    '[moment(1767291299), moment("2026-01-01T18:15:00+00:00"), moment("soon"), moment(null)]': [
        *("2026-01-01 23:59:59", "2026-01-02 00:00:00", "soon", "")
    ],
    "[0, 999, 1000, 123456, 2e15, null].map(bytes)": [
        *("0 B", "999 B", "1.0 KB", "123 KB", "2000 TB", "–")
    ],
    '[scoreTitle("bleu", { decoding: "greedy" }), scoreTitle("a_b")]': ["BLEU (greedy)", "a b"],
    "[1, 4].map((beam_size) => searchLabel({ beam_size, length_penalty: 0.6 }))": [
        *("greedy", "beam 4, α 0.6")
    ],
    '[scoreValue("loss", 1), scoreValue("bleu", 1), scoreValue("bleu", null)]': [
        *("1.0000", "1.00", "–")
    ],
    '[settingText("a"), settingText([1]), settingText(null)]': ["a", "[1]", "–"],
}
ADDRESSES = {
    "writeView(newView())": "",
    'again({ runs: ["a,b", "c&d=é"], filter: "bleu>3 x", sort: "-step" }).runs': ["a,b", "c&d=é"],
    'again({ filter: "bleu>3 +x", x: "hours" }).filter': "bleu>3 +x",
    'again({ x: "hours" }).x': "hours",
    "again({ smooth: 0.6 }).smooth": 0.6,
    'again({ charts: [], log: ["loss"] })': {
        **{"run": None, "runs": None, "filter": "", "sort": "", "columns": [], "x": "step"},
        **{"smooth": 0, "log": ["loss"], "charts": [], "zoom": None, "step": None},
    },
    "again({ zoom: [100, 200.5] }).zoom": [100, 200.5],
    'again({ run: "a", step: { id: "x@y", step: 57 } }).step': {"id": "x@y", "step": 57},
    'parseView("#x=years&smooth=1&zoom=9..3&step=a@-1&runs=%25zz")': {
        **{"run": None, "runs": ["%zz"], "filter": "", "sort": "", "columns": [], "x": "step"},
        **{"smooth": 0, "log": [], "charts": None, "zoom": None, "step": None},
    },
}


@pytest.mark.parametrize("cases", [FILTERS, SERIES, WORDS, ADDRESSES])
def test_the_page_computes(cases, tmp_path):
    modules = (f"{name}.js" for name in ("filters", "series", "words", "view_state"))
    program = dashboard_modules(*modules) + SET_UP + EVALUATE
    answers = answer_of_node(program, list(cases), tmp_path)
    assert dict(zip(cases, answers, strict=True)) == cases
