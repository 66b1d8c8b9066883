"""Comparison of two prepared datasets, or of two run folders, bit by bit.

Differences are sentences in the order in which a run computes: step by step, the data before the
loss and the loss before the gradients. The first difference is therefore nearest to its cause.
Clocks, paths and ids are not compared, because they differ between any two runs. A field that no
list below names is an error, so that a new field is either compared or deliberately left out.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from run_store.record.facts import MEASURED

Line = dict[str, Any]

# Fields of the lines of metrics.jsonl, in the order in which a step computes them.
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
        "other_sums",
        "target_tokens_seen",
        "world_size",
        "model_flops",
        "hardware_flops",
        # fields of skipped steps
        "cause",
        "refusal",
        "slots",
        "ranks",
        "in_a_row",
        "skipped_steps",
        "skipped_spikes",
        "loss_threshold",
        "grad_norm_threshold",
    ),
    "validation": ("loss", "perplexity", "bleu", "samples"),
}
# Fields of these lines that depend on clocks, machines, or the time of a kill.
UNCOMPARED_FIELDS = {
    "train": {fact.name for fact in MEASURED} - {"time", "world_size"},
    "validation": {"seconds"},
}
LINE_FIELDS = {"version", "step", "kind", "time", "scores"}  # of every line; scores have own names
# Events that follow from what the steps compute, with the fields that are compared, and all others.
EVENTS = ("repeated", "replay_mismatch", "corruption_found", "wrong_reduction")
UNCOMPARED_EVENTS = {
    *("resumed", "resized", "preempted", "slow_rank", "rank_recovered", "rank_hung"),
}
# Fields that every line must have. Without them, equal lines would prove little.
REQUIRED = {"train": ("data_digest", "loss", "grad_norm"), "validation": ("loss",)}
# Fields of checkpoint.json that the run computes. The other fields describe place, time and recipe
# of the run.
HEADER_FIELDS = (
    "step",
    "optimizer_step",
    "cursor",
    "data_digest",
    "parameters",
    "parameter_groups",
    "validation_loss",
    "validation_perplexity",
    "validation_bleu",
    "validation_due",
    "early_stopping",
    "target_tokens_seen",
    "skipped_steps",
    "skipped_in_a_row",
    "skipped_spikes",
    "recent_steps",
    "guards",
    "gradient_peaks",
    "frozen",
    "averaged_steps",
    "imported_from",
)
UNCOMPARED_HEADER_FIELDS = {
    *("format", "dataset_identity", "recipe", "identity", "numerics", "parent", "scores"),
    *("files", "sha256"),
}
LONGEST_VALUE = 70


class ComparisonError(Exception):
    """Error of a folder that has nothing to compare, or has an unknown form."""


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison.

    Attributes:
        differences: sentences; the first one is nearest to the cause.
        compared: the numbers of files or steps that were compared, in words.
    """

    differences: list[str]
    compared: str


def compare_datasets(base: Path, here: Path) -> Comparison:
    """Compare the files of two prepared datasets, byte by byte.

    Raises:
        ComparisonError: the base has no file.
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
    """Compare the records and all checkpoints of two runs.

    Raises:
        ComparisonError: the base has no step or no checkpoint, or a run has an unknown format.
    """
    ours, theirs = (_record(folder / "metrics.jsonl") for folder in (base, here))
    differences = []
    for place in sorted(ours.keys() | theirs.keys()):
        differences += _compare_lines(place, ours.get(place), theirs.get(place))
    events = [_events(folder / "metrics.jsonl") for folder in (base, here)]
    differences += [
        f"events {name}: {_both(*(found[name] for found in events))}"
        for name in EVENTS
        if events[0][name] != events[1][name]
    ]

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
    """Return at most one sentence, with the first field that differs and the other such fields."""
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
    """Return the steps and validations of a record, in order, including skipped steps."""
    lines: dict[tuple[int, str], Line] = {}
    for line in _lines(path):
        kind = "train" if line["kind"] == "skipped" else line["kind"]
        if kind == "event":
            continue
        if kind not in FIELDS:
            raise _unknown(path, "kind", {kind})
        line |= {name: score.get("value") for name, score in line.get("scores", {}).items()}
        if unknown := line.keys() - LINE_FIELDS - {*FIELDS[kind]} - UNCOMPARED_FIELDS[kind]:
            raise _unknown(path, f"field of a {line['kind']} line", unknown)
        missing = [field for field in REQUIRED[kind] if field not in line]
        if missing and line["kind"] != "skipped":
            raise ComparisonError(
                f"{path} has a {kind} line without {', '.join(missing)}: if the format of records "
                f"has changed, update FIELDS and REQUIRED in {Path(__file__).name}"
            )
        lines[line["step"], kind] = line
    if not lines:
        raise ComparisonError(f"{path} has no step")
    return lines


def _events(path: Path) -> dict[str, list[str]]:
    """Return the events of a record that are compared, as distinct lines of JSON.

    A restart may record an event again, depending on the time of the kill.
    """
    events: dict[str, set[str]] = {name: set() for name in EVENTS}
    for line in _lines(path):
        if line["kind"] != "event":
            continue
        name = line["event"]
        if name in events:
            fields = {key: value for key, value in line.items() if key not in ("time", "version")}
            events[name].add(json.dumps(fields, sort_keys=True, ensure_ascii=False))
        elif name not in UNCOMPARED_EVENTS:
            raise _unknown(path, "event", {name})
    return {name: sorted(lines) for name, lines in events.items()}


def _unknown(path: Path, noun: str, names: Iterable[str]) -> ComparisonError:
    return ComparisonError(
        f"{path} has an unknown {noun}, {', '.join(sorted(names))}: add it to the lists of "
        f"{Path(__file__).name}, which say what is compared and what is not"
    )


def _lines(path: Path) -> list[Line]:
    # splitlines would also split at U+2028 and other characters that a sentence may contain.
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def _checkpoints(run: Path) -> dict[str, Path]:
    return {path.name: path for path in (run / "checkpoints").glob("step-*")}


def _compare_checkpoints(base: Path, here: Path) -> tuple[list[str], int]:
    """Return the differences between two checkpoints, and the first one's number of tensors."""
    headers = [json.loads((path / "checkpoint.json").read_bytes()) for path in (base, here)]
    # The first checkpoint format had a field for each score.
    for path, header in zip((base, here), headers, strict=True):
        for name, score in header.get("scores", {}).items():
            header[f"validation_{name}"] = score["value"]
        if unknown := header.keys() - {*HEADER_FIELDS} - UNCOMPARED_HEADER_FIELDS:
            raise _unknown(path, "field of checkpoint.json", unknown)
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
    """Return whole tensors by kind:parameter, joined from the fragments of all ranks.

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
    """Return a description of the first difference between two flat tensors, or None.

    The function compares bits, not numbers, because 0.0 equals -0.0 and NaN does not equal itself.
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
