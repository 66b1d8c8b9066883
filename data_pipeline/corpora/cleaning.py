"""Cleaning: which pairs of a corpus are kept, and a report of those that are not.

    pairs ──normalise──▶ rules on text ──▶ kept          (here, in `Cleaner`)
    kept ──duplicates──▶ tokens ──none, or too many──▶       (in shuffle.py and group_writer.py)

Each rule counts the pairs to which it applied first, and shows the earliest of them.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.config import DataConfig
from data_pipeline.corpora.formats import Pair
from data_pipeline.corpus_config import CorpusConfig

EMPTY = "empty"
EXAMPLES_SHOWN = 10
# A line of a corpus may have a million characters; the report need not.
EXAMPLE_CHARACTERS = 500


@dataclass(frozen=True)
class Example:
    """A dropped pair."""

    position: int  # in its corpus, from 0
    source: str
    target: str

    def to_json(self) -> dict[str, Any]:
        return {"pair": self.position + 1, "source": self.source, "target": self.target}


@dataclass
class Dropped:
    """The pairs to which one rule applied: how many, and the earliest."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, position: int, source: str, target: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES_SHOWN or position < self.examples[-1].position:
            shown = source[:EXAMPLE_CHARACTERS], target[:EXAMPLE_CHARACTERS]
            self._show([Example(position, *shown)])

    def merge(self, other: "Dropped") -> None:
        self.count += other.count
        self._show(other.examples)

    def _show(self, more: list[Example]) -> None:
        by_position = sorted([*self.examples, *more], key=lambda example: example.position)
        self.examples = by_position[:EXAMPLES_SHOWN]


class DropReport:
    """What was dropped of a corpus, by reason; reports of its parts merge in any order."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.by_reason = {reason: Dropped() for reason in reasons}

    def merge(self, other: "DropReport") -> None:
        for reason, dropped in other.by_reason.items():
            self.by_reason.setdefault(reason, Dropped()).merge(dropped)

    def counts(self) -> dict[str, int]:
        return {reason: dropped.count for reason, dropped in self.by_reason.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            reason: {
                "count": dropped.count,
                "examples": [example.to_json() for example in dropped.examples],
            }
            for reason, dropped in self.by_reason.items()
        }


class Cleaner:
    """The rules on text of one corpus, which are chosen once."""

    def __init__(self, data: DataConfig, corpus: CorpusConfig) -> None:
        self._rules = data.cleaning
        self._min_score = corpus.min_score
        self.reasons = [EMPTY]
        for reason, wanted in (
            ("source_characters", self._rules.max_source_characters),
            ("target_characters", self._rules.max_target_characters),
            ("length_ratio", self._rules.max_length_ratio),
            ("identical", self._rules.drop_identical or None),
            ("score", self._min_score),
        ):
            if wanted is not None:
                self.reasons.append(reason)

    def clean(self, first: int, pairs: list[Pair]) -> tuple[list[tuple[int, str, str]], DropReport]:
        """The pairs that are kept, each with its position in the corpus, and what was dropped.

        Args:
            first: position of the first of the pairs.
        """
        report = DropReport(self.reasons)
        kept = []
        for position, (source, target, score) in enumerate(pairs, first):
            if self._rules.normalise:
                source = unicodedata.normalize(self._rules.normalise, source)
                target = unicodedata.normalize(self._rules.normalise, target)
            reason = self._why_not(source, target, score)
            if reason is None:
                kept.append((position, source, target))
            else:
                report.by_reason[reason].add(position, source, target)
        return kept, report

    def _why_not(self, source: str, target: str, score: float | None) -> str | None:
        """The first rule that drops a pair."""
        rules = self._rules
        if not source.strip() or not target.strip():
            return EMPTY
        if rules.max_source_characters and len(source) > rules.max_source_characters:
            return "source_characters"
        if rules.max_target_characters and len(target) > rules.max_target_characters:
            return "target_characters"
        if rules.max_length_ratio:
            shorter, longer = sorted((len(source), len(target)))
            if longer > rules.max_length_ratio * shorter:
                return "length_ratio"
        if rules.drop_identical and source == target:
            return "identical"
        if self._min_score is not None and score is not None and score < self._min_score:
            return "score"
        return None
