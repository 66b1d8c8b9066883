"""Several systems on one test set, as a paper reports them: scores, tests, and where they differ.

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

    __test__ = False  # pytest takes it for one of its own

    name: str
    sources: list[str]
    references: list[str]
    sources_sha256: str
    references_sha256: str


@dataclass(frozen=True)
class Candidate:
    """A run's checkpoint and what it makes of the test set.

    Attributes:
        name: as the user has named the run.
        recipe: tells runs that differ in nothing but their seed from others; equal for those.
        file: has the hypotheses, a line each.
        reused: whether they were there already.
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
    """The scores of the sentences of some lengths, of each system by metric."""

    bucket: Bucket
    sentences: int
    scores: list[dict[str, float]]


@dataclass(frozen=True)
class Seeds:
    """Runs of one recipe that differ in their seed.

    Attributes:
        mean, deviation: by metric; the deviation is the sample's, with n - 1.
    """

    systems: list[str]
    seeds: list[int]
    mean: dict[str, float]
    deviation: dict[str, float]


@dataclass(frozen=True)
class SystemComparison:
    """All that is found out about several systems; the first one is the baseline."""

    test_set: TestSet
    systems: list[Candidate]
    signatures: dict[str, Signatures]
    scores: list[dict[str, Tested]]
    lengths: list[LengthScores]
    words: list[WordAccuracy]
    words_counted_in: str
    seeds: list[Seeds]

    def to_json(self) -> dict[str, Any]:
        """Everything but the sentences themselves."""
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


_OURS = ("hypotheses", "recipe", "file")  # of a candidate, not told


def compare_systems(
    test_set: TestSet,
    candidates: Sequence[Candidate],
    frequencies: Frequencies,
    report: Report,
) -> SystemComparison:
    """Compare systems with the first one.

    Args:
        frequencies: of words, by which rare ones are told.
        report: is told what is being done, and how much of it is done.
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
    """The recipes of which there are several seeds, in the order of their first runs.

    A recipe with the same seed twice, as with two checkpoints of a run, is left out.
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
