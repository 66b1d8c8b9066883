"""Comparison of several systems on one test set, as a paper reports it.

hypotheses and references ──▶ BLEU, chrF, TER and their significance     significance.py
                          ──▶ by length of the source, by rare words     breakdowns.py
runs of one recipe with other seeds ──▶ mean and deviation of their scores
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from transloom.inference.breakdowns import (
    Bucket,
    Frequencies,
    WordAccuracy,
    by_frequency,
    by_length,
)
from transloom.inference.significance import Report, Scorer, Signatures, System, Tested


@dataclass(frozen=True)
class TestSet:
    """Sentences and their references.

    Attributes:
        sources_sha256, references_sha256: of the dataset's files.
    """

    __test__ = False  # pytest would collect it because of its name

    name: str
    sources: list[str]
    references: list[str]
    sources_sha256: str
    references_sha256: str


@dataclass(frozen=True)
class Candidate:
    """A run's checkpoint and its translations of the test set.

    Attributes:
        name: the run's name as the user gave it.
        recipe: key of the recipe, seed excluded: equal for runs that differ only in their seed.
        file: has one hypothesis per line.
        reused: whether the hypotheses were stored by an earlier command.
    """

    name: str
    run_id: str
    checkpoint: str
    step: int
    seed: int
    recipe: str
    beam_size: int
    length_penalty: float
    hypotheses: list[str]
    file: Path
    sha256: str
    reused: bool


@dataclass(frozen=True)
class LengthScores:
    """Scores of the sentences in a bucket of lengths, of each system by metric."""

    bucket: Bucket
    sentences: int
    scores: list[dict[str, float]]


@dataclass(frozen=True)
class Seeds:
    """Runs of one recipe that differ only in their seed.

    Attributes:
        mean, deviation: by metric; the deviation is the sample's, with n - 1.
    """

    systems: list[str]
    seeds: list[int]
    mean: dict[str, float]
    deviation: dict[str, float]


@dataclass(frozen=True)
class SystemComparison:
    """Results of a comparison of several systems; the first system is the baseline."""

    test_set: TestSet
    systems: list[Candidate]
    signatures: dict[str, Signatures]
    scores: list[dict[str, Tested]]
    lengths: list[LengthScores]
    words: list[WordAccuracy]
    words_counted_in: str
    seeds: list[Seeds]

    def to_json(self) -> dict[str, Any]:
        """Return everything except the sentences themselves."""
        test_set = asdict(self.test_set)
        sentences = len(test_set.pop("sources"))
        del test_set["references"]
        systems = [
            {
                **{key: value for key, value in asdict(system).items() if key not in _OURS},
                "file": str(system.file),
                "scores": {name: asdict(tested) for name, tested in scores.items()},
            }
            for system, scores in zip(self.systems, self.scores, strict=True)
        ]
        return {
            "test_set": test_set | {"sentences": sentences},
            "baseline": self.systems[0].name,
            "metrics": {name: asdict(found) for name, found in self.signatures.items()},
            "systems": systems,
            "by_length": {
                "unit": "words of the source",
                "rows": [asdict(row) for row in self.lengths],
            },
            "by_word_frequency": {
                "counted_in": self.words_counted_in,
                "rows": [asdict(row) for row in self.words],
            },
            "seeds": [asdict(group) for group in self.seeds],
        }


_OURS = ("hypotheses", "recipe", "file")  # not in a candidate's JSON as they are


def compare_systems(
    test_set: TestSet,
    candidates: Sequence[Candidate],
    frequencies: Frequencies,
    report: Report,
) -> SystemComparison:
    """Compare systems with the first one.

    Args:
        frequencies: of words, which define the buckets of rare words.
        report: called with the present activity, the completed work, and the total work.
    """
    systems = [System(candidate.name, candidate.hypotheses) for candidate in candidates]
    scorer = Scorer(systems, test_set.references)
    scorer.compute_statistics(report)
    scores, signatures = scorer.test(report)
    return SystemComparison(
        test_set=test_set,
        systems=list(candidates),
        signatures=signatures,
        scores=scores,
        lengths=[
            LengthScores(bucket, len(numbers), scorer.scores_of(numbers))
            for bucket, numbers in by_length(test_set.sources)
        ],
        words=by_frequency(
            test_set.references, [system.hypotheses for system in systems], frequencies
        ),
        words_counted_in=frequencies.counted_in,
        seeds=_seeds(candidates, scores),
    )


def _seeds(candidates: Sequence[Candidate], scores: list[dict[str, Tested]]) -> list[Seeds]:
    """Return the recipes with several seeds, in the order of their first runs.

    A recipe with a repeated seed, such as two checkpoints of one run, is left out.
    """
    groups: dict[str, list[int]] = {}
    for number, candidate in enumerate(candidates):
        groups.setdefault(candidate.recipe, []).append(number)
    found = []
    for numbers in groups.values():
        seeds = [candidates[number].seed for number in numbers]
        if len(numbers) < 2 or len(set(seeds)) < len(seeds):
            continue
        values = {name: [scores[n][name].score for n in numbers] for name in scores[0]}
        found.append(
            Seeds(
                systems=[candidates[number].name for number in numbers],
                seeds=seeds,
                mean={name: mean(numbers) for name, numbers in values.items()},
                deviation={name: stdev(numbers) for name, numbers in values.items()},
            )
        )
    return found
