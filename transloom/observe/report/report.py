"""Write runs as one HTML file that opens without a network and can be sent to others.

`transloom report` writes this file. It is the dashboard's page with the responses that the page
would request. It also has content that a live page would take too long to compute: hashes of files,
and scores of the translations that are stored in the run's folder.

::

    page/index.html ─┬─ its style sheets and scripts, inlined
                     ├─ its modules, joined into one script
                     ├─ the server's responses, as JSON in <script id="frozen">
                     └─ a content security policy that allows only these, by their sha256
"""

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from data_pipeline.storage.regular_files import write_atomically
from data_pipeline.storage.store import MANIFEST_NAME
from foundation.errors import DataError
from foundation.shown_urls import with_urls
from model.errors import ModelError
from run_store.checkpoints.checkpoint import sha256_of
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import HEADER
from run_store.errors import RunError
from run_store.folder import RunFolder
from transloom.inference.stored_translations import stored_scores
from transloom.observe.dashboard.api_models import run_path
from transloom.observe.dashboard.run_responses import frozen_responses
from transloom.observe.dashboard.runs_folder import run_id
from transloom.observe.drawing.modules import DRAWING, hash_source, joined_modules
from transloom.web.page_files import SHARED

FROZEN = "/frozen"  # key of the report's metadata; all other keys are request paths
DIGITS = 7  # significant digits of the numbers in curves
MAX_EVENTS = 2000  # maximum number of events per run; a run that skips steps for days has many
PAGE: Traversable = files("transloom.observe.dashboard") / "page"

_STYLE = re.compile(r'<link rel="stylesheet" href="static/([\w./-]+)">')
_SCRIPT = re.compile(r'<script src="static/([\w./-]+)" (?:defer|type="(module)")></script>')


def write_report(runs: Sequence[Path], file: Path) -> dict[str, Any]:
    """Write a report about runs; return the report's path, its runs and its size in bytes.

    Raises:
        RunMismatchError: one of the folders has no run, or two runs have the same name.
        OSError: a metrics file cannot be read, or the report cannot be written.
    """
    answers = frozen_responses(runs)
    for path in runs:
        run = RunFolder(path.resolve())
        name = run_id(run.path.name)
        about = answers[run_path(name)]
        about["events"] = about["events"][-MAX_EVENTS:]
        about["hashes"] = _hashes(run)
        about["test_scores"], problem = _test_scores(run)
        if problem:
            about["standing"]["problems"].append(f"no scores of test sets: {problem}")
        curves = answers[run_path(name, "curves")]
        curves["columns"] = {key: _short(values) for key, values in curves["columns"].items()}
        nodes = answers[run_path(name, "nodes")]
        nodes["nodes"] = {node: _short_usage(usage) for node, usage in nodes["nodes"].items()}
    (first, *others) = runs
    only = None if others else run_id(first.resolve().name)
    answers[FROZEN] = {"time": time.time(), "transloom": version("transloom"), "run": only}
    page = one_file(answers)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, page)
    return {"file": str(file), "runs": [str(run) for run in runs], "bytes": file.stat().st_size}


def _hashes(run: RunFolder) -> dict[str, str]:
    """Return the sha256 of the files that identify the run, by their path in the run's folder."""
    files = [run.recipe, run.metrics, run.dataset / MANIFEST_NAME]
    files += [path / HEADER for path in list_checkpoints(run.checkpoints)[-1:]]
    return {str(file.relative_to(run.path)): sha256_of(file) for file in files if file.is_file()}


def _test_scores(run: RunFolder) -> tuple[list[dict[str, Any]], str | None]:
    """Return the scores of a run's stored translations, and a description of a problem.

    The problem is None unless it prevents reading the scores.
    """
    try:
        return [asdict(score) for score in stored_scores(run)], None
    except (RunError, DataError, ModelError, OSError) as error:
        return [], str(error)


def _short(values: list[Any]) -> list[Any]:
    """Round floats to `DIGITS` significant digits."""
    return [float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for v in values]


def _short_usage(usage: dict[str, Any]) -> dict[str, Any]:
    gpus = [
        {key: _short(values) if isinstance(values, list) else values for key, values in gpu.items()}
        for gpu in usage.get("gpus", [])
    ]
    lists = {key: _short(values) for key, values in usage.items() if key not in ("gpus", "time")}
    return {**lists, "time": [round(at, 1) for at in usage["time"]], "gpus": gpus}


def one_file(answers: Mapping[str, Any]) -> str:
    """Return the page as one HTML text that contains the server's responses.

    Args:
        answers: the responses by request path.
    """
    hashes: dict[str, list[str]] = {"script-src": [], "style-src": []}

    def script(found: re.Match[str]) -> str:
        name, is_module = found[1], found[2] is not None
        text = joined_modules(PAGE, name, shared={"drawing": DRAWING}) if is_module else _read(name)
        hashes["script-src"].append(hash_source(text))
        return f'<script type="module">{text}</script>' if is_module else f"<script>{text}</script>"

    def style(found: re.Match[str]) -> str:
        text = _read(found[1])
        hashes["style-src"].append(hash_source(text))
        return f"<style>{text}</style>"

    icon = base64.b64encode((PAGE / "icon.svg").read_bytes()).decode()
    page = _SCRIPT.sub(script, _STYLE.sub(style, _read("index.html")))
    page = page.replace('href="static/icon.svg"', f'href="data:image/svg+xml;base64,{icon}"')
    rules = "; ".join(f"{kind} {' '.join(found)}" for kind, found in hashes.items())
    policy = f"default-src 'none'; {rules}; img-src data:; base-uri 'none'; form-action 'none'"
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    data = f'<script type="application/json" id="frozen">{_json(answers)}</script>\n</body>'
    return data.join(page.rsplit("</body>", 1))


def _read(name: str) -> str:
    shared = name.removeprefix("shared/")
    text = (PAGE / name if shared == name else SHARED / shared).read_text(encoding="utf-8")
    assert "</script" not in text or name.endswith(".html"), f"{name} would end its own script"
    return text


def _json(answers: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(answers, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = with_urls(text)
    return text.replace("<", "\\u003c")
