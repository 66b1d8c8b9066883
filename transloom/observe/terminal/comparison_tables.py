"""Build tables that compare systems on a test set, for a terminal or as Markdown for a paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group

from foundation.terminal import shown
from foundation.untrusted_text import visible
from foundation.wording import counted, join_items
from model.config.transformer import search_label
from transloom.inference.significance import Tested
from transloom.inference.system_comparison import SystemComparison
from transloom.observe.terminal.tables import AnswerTable, Column

HASH_SHOWN = 16


@dataclass(frozen=True)
class _Sheet:
    """A table with a title."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def comparison_text(comparison: SystemComparison) -> Group:
    """Return the complete comparison as text for a terminal."""
    parts: list[Any] = [shown((_title(comparison), "bold"))]
    for sheet in _sheets(comparison):
        table = AnswerTable(*(Column(h, copied=h in _COPIED) for h in sheet.headings))
        for row in sheet.rows:
            table.add(*row)
        parts += ["", shown((sheet.title, "bold")), table]
    return Group(*parts, "", *map(shown, _notes(comparison)))


def comparison_markdown(comparison: SystemComparison) -> str:
    """Return the complete comparison as Markdown."""
    parts = [f"**{_cell(_title(comparison))}**"]
    for sheet in _sheets(comparison):
        lines = [sheet.headings, ["---"] * len(sheet.headings), *sheet.rows]
        rows = ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]
        parts += [f"{sheet.title}:", "\n".join(rows)]
    return "\n\n".join([*parts, *(f"- {_cell(text)}" for text in _notes(comparison))])


_COPIED = ("system", "decoding", "hypotheses")


def _title(comparison: SystemComparison) -> str:
    test_set = comparison.test_set
    sentences = counted(len(test_set.references), "sentence")
    return f"{test_set.name}: {sentences}, the baseline is {comparison.systems[0].name}"


def _sheets(comparison: SystemComparison) -> list[_Sheet]:
    names = _short_names([system.name for system in comparison.systems])
    sheets = [_scores(comparison, names)]
    if comparison.seeds:
        sheets.append(_seeds(comparison, names))
    sheets += [_lengths(comparison, names), _words(comparison, names), _systems(comparison, names)]
    return sheets


def _scores(comparison: SystemComparison, names: list[str]) -> _Sheet:
    headings = (
        *("system", "decoding", "metric", "score"),
        *("95 % interval", "p, bootstrap", "p, randomisation"),
    )
    systems = zip(names, comparison.systems, comparison.scores, strict=True)
    rows = [
        [
            *(name, search_label(system.beam_size, system.length_penalty), metric),
            *(f"{t.score:.2f}", f"{t.mean:.2f} ± {t.interval:.2f}", *_p_values(t)),
        ]
        for name, system, scores in systems
        for metric, t in scores.items()
    ]
    return _Sheet("Scores, and tests of their difference from the baseline", headings, rows)


def _p_values(tested: Tested) -> list[str]:
    values = (tested.p_bootstrap, tested.p_randomisation)
    return ["baseline" if p is None else f"{p:.4f}" for p in values]


def _seeds(comparison: SystemComparison, names: list[str]) -> _Sheet:
    short = dict(zip([system.name for system in comparison.systems], names, strict=True))
    metrics = list(comparison.signatures)
    rows = [
        [
            join_items(short[name] for name in group.systems),
            join_items(group.seeds),
            *(f"{group.mean[m]:.2f} ± {group.deviation[m]:.2f}" for m in metrics),
        ]
        for group in comparison.seeds
    ]
    title = "Seeds of one recipe, mean ± standard deviation"
    return _Sheet(title, ["systems", "seeds", *metrics], rows)


def _lengths(comparison: SystemComparison, names: list[str]) -> _Sheet:
    rows = [
        [str(row.bucket), f"{row.sentences:,}", metric, *(f"{s[metric]:.2f}" for s in row.scores)]
        for row in comparison.lengths
        for metric in comparison.signatures
    ]
    headings = ["words", "sentences", "metric", *names]
    return _Sheet("Scores by source length", headings, rows)


def _words(comparison: SystemComparison, names: list[str]) -> _Sheet:
    rows = [
        [str(row.bucket), f"{row.words:,}", *("–" if f1 is None else f"{f1:.2f}" for f1 in row.f1)]
        for row in comparison.words
    ]
    title = "F1 of words by their frequency in the training data"
    return _Sheet(title, ["times", "words of the references", *names], rows)


def _systems(comparison: SystemComparison, names: list[str]) -> _Sheet:
    rows = [
        [
            name,
            system.checkpoint,
            str(system.seed),
            search_label(system.beam_size, system.length_penalty),
            "reused" if system.reused else "translated now",
            str(system.file),
            system.sha256[:HASH_SHOWN],
        ]
        for name, system in zip(names, comparison.systems, strict=True)
    ]
    headings = ("system", "checkpoint", "seed", "decoding", "made", "hypotheses", "sha256")
    return _Sheet("Compared systems", headings, rows)


def _notes(comparison: SystemComparison) -> list[str]:
    test_set = comparison.test_set
    signatures = [
        f"{name}: {found.bootstrap}; randomisation {found.randomisation}"
        f"{'' if found.more_is_better else '; less is better'}"
        for name, found in comparison.signatures.items()
    ]
    return [
        *signatures,
        "p: probability that chance alone causes a difference this large, by paired bootstrap and "
        "by approximate randomisation",
        f"frequencies of words are from {comparison.words_counted_in}",
        f"sha256 of the sources: {test_set.sources_sha256}; of the references: "
        f"{test_set.references_sha256}",
    ]


def _short_names(names: list[str]) -> list[str]:
    """Return the last component of each path, or the full paths if two components are equal."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else names


def _cell(text: str) -> str:
    """Escape a text for a Markdown cell, so that it neither ends the cell nor acts as markup."""
    escaped = visible(text).replace("\\", "\\\\")
    for mark in "|*_<>`[]":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped.replace("\n", " ")
