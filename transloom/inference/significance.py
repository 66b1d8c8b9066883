"""Significance tests of the difference between systems.

Paired bootstrap (Koehn 2004) and approximate randomisation (Riezler and Maxwell 2005) are computed
by sacreBLEU's `PairedTest`, with its seed and its numbers of resamples. The results equal those of
`sacrebleu -i A B --paired-bs` and `--paired-ar` on the same files.

The statistics of each sentence are computed once per metric. All scores are computed from sums of
these statistics. The statistics of TER take longer than everything else.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import sacrebleu
from sacrebleu.significance import PairedTest

# Number of sentences whose statistics are computed between two progress reports.
SENTENCES_PER_REPORT = 20

# Default values of sacreBLEU.
BOOTSTRAP_SEED = 12345
BOOTSTRAP_RESAMPLES = 1000

# `bleu` and `chrf` score detokenised text. `bleu_literature` is BLEU on lower-cased Moses tokens;
# see `evaluation`.
Metric = Literal["bleu", "chrf", "bleu_literature"]

# Callback with the current activity, the completed work, and the total work.
Report = Callable[[str, int, int], None]


class _CachedStatistics:
    """Mixin for sacreBLEU's metrics that caches statistics by sentence number and hypothesis.

    All calls to an object must have the same references. `_extract_corpus_statistics` is private in
    sacreBLEU; `PairedTest` calls it (read in 2.5.0 and 2.6.0).
    """

    report: Callable[[int], None] = staticmethod(lambda sentences: None)

    def _extract_corpus_statistics(self, hypotheses: Any, references: Any) -> list[Any]:
        known: dict[tuple[int, str], Any] = self.__dict__.setdefault("statistics", {})
        new = [n for n, text in enumerate(hypotheses) if (n, text) not in known]
        for start in range(0, len(new), SENTENCES_PER_REPORT):
            part = new[start : start + SENTENCES_PER_REPORT]
            found = super()._extract_corpus_statistics(  # type: ignore[misc]
                [hypotheses[n] for n in part], [[stream[n] for n in part] for stream in references]
            )
            known.update(zip([(n, hypotheses[n]) for n in part], found, strict=True))
            self.report(len(part))
        return [known[n, text] for n, text in enumerate(hypotheses)]


class _Bleu(_CachedStatistics, sacrebleu.BLEU):
    pass


class _Chrf(_CachedStatistics, sacrebleu.CHRF):
    pass


class _Ter(_CachedStatistics, sacrebleu.TER):
    pass


@dataclass(frozen=True)
class Tested:
    """Score of a system by one metric.

    Attributes:
        score: score on the test set.
        mean: mean score of the bootstrap's resamples.
        interval: half the width of the 95 % confidence interval, which is centred on `mean`.
        p_bootstrap, p_randomisation: p values of the difference from the baseline, or None for the
            baseline itself.
    """

    score: float
    mean: float
    interval: float
    p_bootstrap: float | None
    p_randomisation: float | None


@dataclass(frozen=True)
class Signatures:
    """sacreBLEU's signatures of one metric, which differ between the two tests.

    Attributes:
        more_is_better: True if a higher score is better.
    """

    bootstrap: str
    randomisation: str
    more_is_better: bool


class Scorer:
    """Scorer of several systems on the same sentences, by BLEU, chrF and TER."""

    def __init__(self, systems: Sequence[tuple[str, list[str]]], references: list[str]) -> None:
        """Store the hypotheses and references.

        Args:
            systems: the name of each system, as shown in tables, and its hypotheses, one per
                sentence. The first one is the baseline.
        """
        assert all(len(hypotheses) == len(references) for _, hypotheses in systems)
        # Remove trailing white space, as sacreBLEU does when it reads files.
        self._systems = [(name, [text.rstrip() for text in texts]) for name, texts in systems]
        self._references = [[text.rstrip() for text in references]]
        self._metrics: dict[str, Any] = {"BLEU": _Bleu(), "chrF2": _Chrf(), "TER": _Ter()}

    def compute_statistics(self, report: Report) -> None:
        """Compute the statistics of all sentences, which is most of the work."""
        for name, metric in self._metrics.items():
            for system, hypotheses in self._systems:
                done = 0

                def tell(sentences: int, what: str = f"{name} of {system}") -> None:
                    nonlocal done
                    done += sentences
                    report(what, done, len(self._references[0]))

                metric.report = tell
                metric._extract_corpus_statistics(hypotheses, self._references)
                if done < len(hypotheses):  # the remaining texts are cached from earlier systems
                    tell(len(hypotheses) - done)

    def test(self, report: Report) -> tuple[list[dict[str, Tested]], dict[str, Signatures]]:
        """Compute each system's scores, and test its difference from the first system.

        Returns:
            For each system its results by metric, and the signatures by metric.
        """
        baseline, *others = self._systems
        tests = len(others) * 2
        results: list[dict[str, Tested]] = []
        for number, other in enumerate(others):
            found: list[Any] = []
            for kind in ("bs", "ar"):
                # A separate test per system gives the same results as one test of all systems,
                # since each test starts with the same seed.
                test = PairedTest(
                    [baseline, other], self._metrics, self._references, test_type=kind
                )
                found.append(test())
                report("significance", 2 * number + len(found), tests)
            (bootstrap_signatures, bootstrap), (randomised_signatures, randomised) = found
            new = [0, 1] if number == 0 else [1]  # every test includes the baseline
            results += [self._tested(bootstrap, randomised, position) for position in new]
        signatures = {
            name: Signatures(
                str(bootstrap_signatures[name]),
                str(randomised_signatures[name]),
                more_is_better=name != "TER",
            )
            for name in self._metrics
        }
        return results, signatures

    def _tested(self, bootstrap: Any, randomised: Any, position: int) -> dict[str, Tested]:
        """Return a system's results by metric.

        Args:
            bootstrap, randomised: results of the two tests, by metric and position.
            position: the system's position in these results.
        """
        results = {}
        for name in self._metrics:
            one, other = bootstrap[name][position], randomised[name][position]
            results[name] = Tested(
                float(one.score), float(one.mean), float(one.ci), one.p_value, other.p_value
            )
        return results

    def scores_of(self, sentences: Sequence[int]) -> list[dict[str, float]]:
        """Return each system's scores by metric on the sentences with these indices."""
        return [
            {
                name: self._score(metric, hypotheses, sentences)
                for name, metric in self._metrics.items()
            }
            for _, hypotheses in self._systems
        ]

    def _score(self, metric: Any, hypotheses: list[str], sentences: Sequence[int]) -> float:
        statistics = metric._extract_corpus_statistics(hypotheses, self._references)
        some = [statistics[number] for number in sentences]
        return float(metric._aggregate_and_compute(some).score)


class OneMetric:
    """Scorer with one metric, for systems with mostly equal hypotheses, as in a grid search."""

    def __init__(self, metric: Metric, references: Sequence[str]) -> None:
        self._metric: Any = _Chrf() if metric == "chrf" else _Bleu()
        if metric == "bleu_literature":  # its texts are already tokenised
            self._metric = _Bleu(tokenize="none", force=True)
        self._references = [[text.rstrip() for text in references]]

    def score(self, hypotheses: Sequence[str]) -> float:
        """Return the corpus score, as sacreBLEU computes it."""
        return float(self._metric._aggregate_and_compute(self._statistics(hypotheses)).score)

    def p_values(self, baseline: Sequence[str], others: Iterable[Sequence[str]]) -> Iterator[float]:
        """Yield the p value of each system's difference from the baseline, by paired bootstrap.

        A p value is the probability that a difference at least this large arises by chance. It
        equals the p value of sacreBLEU's `PairedTest`, but the baseline is resampled only once for
        all systems. If all texts equal the baseline's texts, the p value is 1, whereas sacreBLEU
        reports its smallest possible value.
        """
        sentences = len(self._references[0])
        drawn = np.random.default_rng(BOOTSTRAP_SEED).choice(
            sentences, size=(BOOTSTRAP_RESAMPLES, sentences)
        )
        times = np.stack([np.bincount(row, minlength=sentences) for row in drawn]).astype("float64")
        known: dict[tuple[str, ...], float] = {tuple(baseline): 1.0}
        score, resampled = self.score(baseline), self._resampled(baseline, times)
        for other in others:
            if (texts := tuple(other)) not in known:
                differences = np.abs(self._resampled(other, times) - resampled)
                larger = differences - differences.mean() > abs(self.score(other) - score)
                known[texts] = (int(larger.sum()) + 1) / (BOOTSTRAP_RESAMPLES + 1)
            yield known[texts]

    def _resampled(self, hypotheses: Sequence[str], times: Any) -> Any:
        """Return the score of each resample.

        Args:
            times: number of occurrences of each sentence in each resample [resamples, sentences].
        """
        # sacreBLEU uses float32. The statistics are counts, whose sums are exact in float64 and in
        # float32.
        sums = (times @ np.array(self._statistics(hypotheses), dtype="float64")).astype("float32")
        return np.array([self._metric._compute_score_from_stats(row).score for row in sums])

    def _statistics(self, hypotheses: Sequence[str]) -> list[Any]:
        texts = [text.rstrip() for text in hypotheses]
        found: list[Any] = self._metric._extract_corpus_statistics(texts, self._references)
        return found

    @property
    def signature(self) -> str:
        """Signature of the score; sacreBLEU completes it when it computes the first score."""
        return str(self._metric.get_signature())
