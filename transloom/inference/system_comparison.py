"""Comparison of several systems on one test set, as a paper reports it.

hypotheses and references ──▶ BLEU, chrF, TER and their significance       significance.py
                          ──▶ scores by source length and word frequency   breakdowns.py
runs that differ only in their seed ──▶ mean and standard deviation of their scores
"""

from collections.abc import Iterator, Sequence
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
from transloom.inference.significance import Report, Scorer, Signatures, Tested


@dataclass(frozen=True)
class TestSet:
    """Sentences of a test set and their references.

    Attributes:
        sources_sha256, references_sha256: hashes of the files in the dataset.
    """

    __test__ = False  # otherwise pytest collects the class because of its name

    name: str
    sources: list[str]
    references: list[str]
    sources_sha256: str
    references_sha256: str


@dataclass(frozen=True)
class Candidate:
    """A run's checkpoint and its translations of the test set.

    Attributes:
        name: the run as the user named it.
        recipe: key of the recipe without the seed; equal for runs that differ only in their seed.
        hypotheses: one translation per sentence.
        file: the file with the hypotheses, one per line.
        sha256: hash of that file.
        reused: True if an earlier command stored the hypotheses.
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
    """Scores of all systems on the sentences whose source length is in one bucket.

    Attributes:
        sentences: number of these sentences.
        scores: for each system, its scores by metric.
    """

    bucket: Bucket
    sentences: int
    scores: list[dict[str, float]]


@dataclass(frozen=True)
class Seeds:
    """Runs of one recipe that differ only in their seed.

    Attributes:
        systems: names of the runs.
        seeds: the seed of each run.
        mean: mean score of the runs, by metric.
        deviation: sample standard deviation of the scores (divisor n - 1), by metric.
    """

    systems: list[str]
    seeds: list[int]
    mean: dict[str, float]
    deviation: dict[str, float]


@dataclass(frozen=True)
class SystemComparison:
    """Results of a comparison of several systems; the first system is the baseline.

    Attributes:
        signatures: by metric.
        scores: for each system, its results by metric.
        words_counted_in: description of the text whose word frequencies define the buckets.
    """

    test_set: TestSet
    systems: list[Candidate]
    signatures: dict[str, Signatures]
    scores: list[dict[str, Tested]]
    lengths: list[LengthScores]
    words: list[WordAccuracy]
    words_counted_in: str
    seeds: list[Seeds]

    def to_json(self) -> dict[str, Any]:
        """Return all results as JSON values, without the sentences themselves."""
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


_OURS = ("hypotheses", "recipe", "file")  # fields that a candidate's JSON does not copy unchanged


def compare_systems(
    test_set: TestSet,
    candidates: Sequence[Candidate],
    frequencies: Frequencies,
    report: Report,
) -> SystemComparison:
    """Compare each system with the first one, which is the baseline.

    Args:
        frequencies: word frequencies, by which words are divided into buckets.
        report: called with the current activity, the completed work, and the total work.
    """
    hypotheses = [candidate.hypotheses for candidate in candidates]
    names = [candidate.name for candidate in candidates]
    scorer = Scorer(list(zip(names, hypotheses, strict=True)), test_set.references)
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
        words=by_frequency(test_set.references, hypotheses, frequencies),
        words_counted_in=frequencies.counted_in,
        seeds=list(_seeds(candidates, scores)),
    )


def _seeds(candidates: Sequence[Candidate], scores: list[dict[str, Tested]]) -> Iterator[Seeds]:
    """Yield the groups of runs that differ only in their seed, in the order of their first runs.

    A group in which a seed occurs twice, such as two checkpoints of one run, is left out.
    """
    groups: dict[str, list[int]] = {}
    for number, candidate in enumerate(candidates):
        groups.setdefault(candidate.recipe, []).append(number)
    for numbers in groups.values():
        seeds = [candidates[number].seed for number in numbers]
        if len(numbers) < 2 or len(set(seeds)) < len(seeds):
            continue
        values = {name: [scores[n][name].score for n in numbers] for name in scores[0]}
        yield Seeds(
            systems=[candidates[number].name for number in numbers],
            seeds=seeds,
            mean={name: mean(numbers) for name, numbers in values.items()},
            deviation={name: stdev(numbers) for name, numbers in values.items()},
        )
