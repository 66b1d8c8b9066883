"""Cleaning of a corpus: rules that drop examples, and a report of the dropped ones.

    examples ──normalise──▶ rules on text ──▶ kept                      (here, in `Cleaner`)
    kept ──drop duplicates──▶ rules on tokens ──▶ stored (in shuffle.py and group_writer.py)

An example is dropped by the first rule that applies to it. The report has, for each rule, the
number of examples that it dropped and the earliest of them. The task chooses the rules:
`text_rules` for documents, `pair_rules` for sentence pairs.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from data_pipeline.config.pair import PairCleaningConfig, PairCorpusConfig
from data_pipeline.config.text import TextCleaningConfig, TextCorpusConfig
from data_pipeline.corpora.formats import Example

NormalForm = Literal["NFC", "NFKC"]
EMPTY = "empty"
HELD_OUT = "held_out"
EXAMPLES_SHOWN = 10
# Lines of a corpus may have a million characters, which would bloat the report.
EXAMPLE_CHARACTERS = 500


class Rule(NamedTuple):
    """Reason to drop an example because of its text or its score."""

    reason: str
    applies: Callable[[Example], bool]  # called with an example whose texts are normalised


class NumberedExample(NamedTuple):
    """Example with its place in its corpus."""

    position: int  # in its corpus, from 0
    texts: tuple[str, ...]


@dataclass
class Dropped:
    """Number of examples that one rule dropped, and the earliest of them."""

    count: int = 0
    examples: list[NumberedExample] = field(default_factory=list)

    def add(self, position: int, texts: tuple[str, ...]) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES_SHOWN or position < self.examples[-1].position:
            shown = tuple(text[:EXAMPLE_CHARACTERS] for text in texts)
            self._show([NumberedExample(position, shown)])

    def merge(self, other: "Dropped") -> None:
        self.count += other.count
        self._show(other.examples)

    def _show(self, more: list[NumberedExample]) -> None:
        by_position = sorted([*self.examples, *more], key=lambda example: example.position)
        self.examples = by_position[:EXAMPLES_SHOWN]


class DropReport:
    """Examples dropped from a corpus, by reason; reports can be merged in any order."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.by_reason = {reason: Dropped() for reason in reasons}

    def merge(self, other: "DropReport") -> None:
        for reason, dropped in other.by_reason.items():
            self.by_reason.setdefault(reason, Dropped()).merge(dropped)

    def counts(self) -> dict[str, int]:
        return {reason: dropped.count for reason, dropped in self.by_reason.items()}

    def to_json(self, noun: str, labels: Sequence[str]) -> dict[str, Any]:
        """Return the content of a cleaning report.

        Args:
            noun: the word for an example, used as the key of an example's number.
            labels: names of the texts of an example, used as their keys.
        """
        return {
            reason: {
                "count": dropped.count,
                "examples": [
                    {noun: example.position + 1, **dict(zip(labels, example.texts, strict=True))}
                    for example in dropped.examples
                ],
            }
            for reason, dropped in self.by_reason.items()
        }


class Cleaner:
    """Rules on the text of one corpus."""

    def __init__(self, rules: Sequence[Rule], normalise: NormalForm | None) -> None:
        """Store the rules of a corpus.

        Args:
            rules: in the order in which they are tried.
            normalise: the Unicode normalisation form that is applied to all texts first (UAX #15).
        """
        self._rules = rules
        self._normalise = normalise
        self.reasons = [rule.reason for rule in rules]

    def clean(
        self, first: int, examples: Iterable[Example]
    ) -> tuple[list[NumberedExample], DropReport]:
        """Return the examples that are kept, and the report of the dropped ones.

        Args:
            first: position in the corpus of the first example, from 0.
        """
        report = DropReport(self.reasons)
        kept = []
        for position, example in enumerate(examples, first):
            if self._normalise:
                normal = [unicodedata.normalize(self._normalise, text) for text in example.texts]
                example = Example(tuple(normal), example.score)
            for reason, applies in self._rules:
                if applies(example):
                    report.by_reason[reason].add(position, example.texts)
                    break
            else:
                kept.append(NumberedExample(position, example.texts))
        return kept, report


class HeldOutTexts:
    """Hashes of the examples of held-out sets, for membership tests."""

    def __init__(
        self, examples: Iterable[tuple[str, ...]] = (), normalise: NormalForm | None = None
    ) -> None:
        """Hash the examples.

        Args:
            normalise: the Unicode normalisation form to apply first, which must be the form of the
                training texts.
        """
        hashes = [hashes_of(texts, normalise) for texts in examples]
        self._exact = frozenset(exact for exact, _ in hashes)
        self._normalised = frozenset(normalised for _, normalised in hashes)

    def has(self, example: Example) -> bool:
        return bool(self._exact) and _hash(example.texts) in self._exact

    def matches(self, texts: Sequence[str]) -> frozenset[bytes]:
        """Return the hashes of a training example that a held-out example also has.

        Returns:
            Both hashes if the examples are equal, one if they differ only in case, white space or
            the form of characters, and none otherwise.
        """
        if (normalised := _normalised_hash(texts)) not in self._normalised:
            return frozenset()
        return frozenset({normalised, _hash(texts)} & (self._normalised | self._exact))


def hashes_of(texts: Sequence[str], normalise: NormalForm | None) -> tuple[bytes, bytes]:
    """Return two hashes of an example: of its texts, and of their normalised form."""
    texts = [unicodedata.normalize(normalise, t) for t in texts] if normalise else texts
    return _hash(texts), _normalised_hash(texts)


def _normalised_hash(texts: Sequence[str]) -> bytes:
    """Return a hash that case, white space and forms of characters (NFKC) do not affect."""
    plain = [
        " ".join(
            (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split()
        )
        for text in texts
    ]
    return b"~" + _hash(plain)


def _hash(texts: Sequence[str]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode()
        state.update(len(data).to_bytes(8, "little") + data)
    return state.digest()


def _is_empty(example: Example) -> bool:
    """Return True if a text of the example is blank."""
    return any(not text.strip() for text in example.texts)


def _score_rules(min_score: float | None) -> list[Rule]:
    """Return the rule that drops examples with a score below `min_score`; none if it is None."""
    if min_score is None:
        return []
    return [Rule("score", lambda example: example.score is not None and example.score < min_score)]


def text_rules(cleaning: TextCleaningConfig, corpus: TextCorpusConfig) -> list[Rule]:
    """Return the configured rules on documents, in the order in which they are tried."""
    fewest, most = cleaning.min_characters, cleaning.max_characters
    rules = [Rule(EMPTY, _is_empty)]
    if fewest is not None:
        rules.append(Rule("too_few_characters", lambda document: len(document.texts[0]) < fewest))
    if most is not None:
        rules.append(Rule("too_many_characters", lambda document: len(document.texts[0]) > most))
    return rules + _score_rules(corpus.min_score)


def pair_rules(cleaning: PairCleaningConfig, corpus: PairCorpusConfig) -> list[Rule]:
    """Return the configured rules on pairs of sentences, in the order in which they are tried."""
    rules = [Rule(EMPTY, _is_empty)]
    for side, most in enumerate((cleaning.max_source_characters, cleaning.max_target_characters)):
        if most is not None:
            rules.append(_too_many_characters(side, most))
    if cleaning.max_length_ratio is not None:
        rules.append(_uneven(cleaning.max_length_ratio))
    if cleaning.drop_identical:
        rules.append(Rule("identical", lambda pair: pair.texts[0] == pair.texts[1]))
    return rules + _score_rules(corpus.min_score)


def _too_many_characters(side: int, most: int) -> Rule:
    reason = ("source_characters", "target_characters")[side]
    return Rule(reason, lambda pair: len(pair.texts[side]) > most)


def _uneven(max_ratio: float) -> Rule:
    def applies(pair: Example) -> bool:
        shorter, longer = sorted(map(len, pair.texts))
        return longer > max_ratio * shorter

    return Rule("length_ratio", applies)
