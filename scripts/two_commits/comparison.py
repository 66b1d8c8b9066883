"""Two prepared datasets, or two run folders, bit by bit.

Differences come as sentences in the order in which a run computes: step by step, the data before
the loss and the loss before the gradients. So the first difference is nearest to its cause. Clocks,
paths and ids are left out, because they differ between any two runs.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Line = dict[str, Any]

# Fields of the lines of metrics.jsonl, in the order in which a step makes them.
FIELDS = {
    "train": (
        "kind",
        "epoch",
        "window",
        "offset",
        "target_tokens",
        "padding_fraction",
        "data_digest",
        "loss",
        "nll",
        "learning_rate",
        "grad_norm",
        "target_tokens_seen",
        "world_size",
    ),
    "validation": ("loss", "perplexity", "bleu", "samples"),
}
# Fields without which a comparison would say little: a record that lacks one is no equal record.
REQUIRED = {"train": ("data_digest", "loss", "grad_norm"), "validation": ("loss",)}
# Fields of checkpoint.json that the run has computed. The others say where, when and from which
# recipe.
HEADER_FIELDS = (
    "step",
    "optimizer_step",
    "cursor",
    "data_digest",
    "parameters",
    "parameter_groups",
    "validation_loss",
    "validation_bleu",
    "validation_due",
    "early_stopping",
    "target_tokens_seen",
    "skipped_steps",
    "skipped_in_a_row",
    "gradient_peaks",
)
LONGEST_VALUE = 70


class ComparisonError(Exception):
    """There is nothing to compare, or it has an unknown form."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and the differences as sentences, the first cause first."""

    differences: list[str]
    compared: str


def compare_datasets(base: Path, here: Path) -> Comparison:
    """Compares the files of two prepared datasets, byte by byte.

    Raises:
        ComparisonError: the first has no file.
    """
    ours, theirs = (_hashes(folder) for folder in (base, here))
    if not ours:
        raise ComparisonError(f"{base} has no file")
    differences = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            differences.append(f"{name}: {_presence(name in ours)}")
        elif ours[name] != theirs[name]:
            differences.append(f"{name}: sha256 {ours[name][:16]}… / {theirs[name][:16]}…")
    return Comparison(differences, _count(len(ours), "file"))


def compare_runs(base: Path, here: Path) -> Comparison:
    """Compares the records and all checkpoints of two runs.

    Raises:
        ComparisonError: the first has no step, no checkpoint, or another format.
    """
    ours, theirs = (_record(folder / "metrics.jsonl") for folder in (base, here))
    differences = []
    for place in sorted(ours.keys() | theirs.keys()):
        differences += _compare_lines(place, ours.get(place), theirs.get(place))
    mismatches = [_mismatches(folder / "metrics.jsonl") for folder in (base, here)]
    if mismatches[0] != mismatches[1]:
        differences.append(f"repeated steps that were not the same: {_both(*mismatches)}")

    checkpoints = [_checkpoints(folder) for folder in (base, here)]
    if not checkpoints[0]:
        raise ComparisonError(f"{base / 'checkpoints'} has no checkpoint")
    tensors = 0
    for name in sorted(checkpoints[0].keys() | checkpoints[1].keys()):
        if not all(name in found for found in checkpoints):
            differences.append(f"checkpoint {name}: {_presence(name in checkpoints[0])}")
            continue
        found, tensors = _compare_checkpoints(*(found[name] for found in checkpoints))
        differences += [f"checkpoint {name}: {difference}" for difference in found]
    steps = sum(kind == "train" for _, kind in ours)
    compared = (
        f"{_count(steps, 'step')}, {_count(len(checkpoints[0]), 'checkpoint')} of "
        f"{_count(tensors, 'tensor')}"
    )
    return Comparison(differences, compared)


def _compare_lines(place: tuple[int, str], ours: Line | None, theirs: Line | None) -> list[str]:
    """At most one sentence: the line's first field that differs, and which others do."""
    step, kind = place
    name = f"step {step}" if kind == "train" else f"validation at step {step}"
    if ours is None or theirs is None:
        return [f"{name}: {_presence(ours is not None)}"]
    other = [field for field in FIELDS[kind] if ours.get(field) != theirs.get(field)]
    if not other:
        return []
    values = _both(*(line.get(other[0], "(absent)") for line in (ours, theirs)))
    rest = f"; then {', '.join(other[1:])}" if other[1:] else ""
    equal = "" if kind != "train" or "data_digest" in other else "data_digest equal, "
    return [f"{name}: {equal}{other[0]} {values}{rest}"]


def _record(path: Path) -> dict[tuple[int, str], Line]:
    """The steps and validations of a record, in order. A skipped step stands for a step."""
    lines: dict[tuple[int, str], Line] = {}
    for line in _lines(path):
        kind = "train" if line["kind"] == "skipped" else line["kind"]
        if kind not in FIELDS:
            continue
        line |= {name: score.get("value") for name, score in line.get("scores", {}).items()}
        missing = [field for field in REQUIRED[kind] if field not in line]
        if missing and line["kind"] != "skipped":
            raise ComparisonError(
                f"{path} has a {kind} line without {', '.join(missing)}: if the record has another "
                f"form now, say so in FIELDS and REQUIRED of {Path(__file__).name}"
            )
        lines[line["step"], kind] = line
    if not lines:
        raise ComparisonError(f"{path} has no step")
    return lines


def _mismatches(path: Path) -> list[Line]:
    """The lines of steps that were repeated after a restart with another result."""
    return [line for line in _lines(path) if line.get("event") == "replay_mismatch"]


def _lines(path: Path) -> list[Line]:
    # Not splitlines, which takes U+2028 and others for line ends: a sentence may hold them.
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def _checkpoints(run: Path) -> dict[str, Path]:
    return {path.name: path for path in (run / "checkpoints").glob("step-*")}


def _compare_checkpoints(base: Path, here: Path) -> tuple[list[str], int]:
    """What differs in two checkpoints, and how many tensors the first has."""
    headers = [json.loads((path / "checkpoint.json").read_bytes()) for path in (base, here)]
    for header in headers:  # the first format had a field for each score
        for name, score in header.get("scores", {}).items():
            header[f"validation_{name}"] = score["value"]
    differences = [
        f"checkpoint.json: {field} {_both(*(header.get(field) for header in headers))}"
        for field in HEADER_FIELDS
        if headers[0].get(field) != headers[1].get(field)
    ]
    ours, theirs = (_state(path) for path in (base, here))
    if not ours:
        raise ComparisonError(f"{base} has no tensor")
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            differences.append(f"{name}: {_presence(name in ours)}")
        elif difference := _first_other_bits(ours[name], theirs[name]):
            differences.append(f"{name}: {difference}")
    return differences, len(ours)


def _state(checkpoint: Path) -> dict[str, np.ndarray]:
    """Each tensor as a whole, by kind:parameter, from the fragments that the ranks have written.

    A fragment is flat and named kind:parameter:start.
    """
    fragments: dict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for path in checkpoint.glob("*.safetensors"):
        for key, values in load_file(path).items():
            name, _, start = key.rpartition(":")
            fragments[name].append((int(start), values))
    state = {}
    for name, parts in fragments.items():
        parts.sort(key=lambda part: part[0])
        ends = np.cumsum([len(values) for _, values in parts]).tolist()
        if [start for start, _ in parts] != [0, *ends[:-1]]:
            raise ComparisonError(f"{checkpoint}: the fragments of {name} leave gaps or overlap")
        state[name] = np.concatenate([values for _, values in parts])
    return state


def _first_other_bits(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """The first difference of two flat tensors.

    Bits are compared, not numbers, because 0.0 is -0.0 and NaN is not itself.
    """
    if ours.dtype != theirs.dtype or len(ours) != len(theirs):
        return f"{len(ours)} × {ours.dtype} / {len(theirs)} × {theirs.dtype}"
    bits = f"u{ours.dtype.itemsize}"
    other = np.flatnonzero(ours.view(bits) != theirs.view(bits))
    if not len(other):
        return None
    first = int(other[0])
    return (
        f"{len(other)} of {len(ours)} elements, first element {first}: "
        f"{_both(ours[first].item(), theirs[first].item())}"
    )


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _presence(in_base: bool) -> str:
    return "only in the base" if in_base else "not in the base"


def _both(base: Any, here: Any) -> str:
    return f"{_short(base)} / {_short(here)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
