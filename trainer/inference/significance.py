"""Whether one system translates better than another, or the difference may be chance.

Paired bootstrap (Koehn 2004) and approximate randomisation (Riezler and Maxwell 2005) are
sacreBLEU's (`sacrebleu.significance.PairedTest`), with its seed and its numbers of resamples, so
the figures are those of `sacrebleu -i A B --paired-bs` and `--paired-ar` on the same files.

A metric's statistics of a sentence, from which all its scores are summed up, are computed once:
the slowest, TER's, take longer than everything else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sacrebleu
from sacrebleu.significance import PairedTest

# Sentences whose statistics are computed before somebody is told of it.
SENTENCES_PER_REPORT = 20

# Told what is being done, and how much of it is done.
Report = Callable[[str, int, int], None]


class _StatisticsOnce:
    """Mixed into a metric of sacreBLEU: statistics of the same hypotheses are computed once.

    `_extract_corpus_statistics` is private, and what `PairedTest` calls (read in 2.5.0 and 2.6.0).
    """

    report: Callable[[int], None] = staticmethod(lambda sentences: None)

    def _extract_corpus_statistics(self, hypotheses: Any, references: Any) -> list[Any]:
        known: dict[int, tuple[Any, list[Any]]] = self.__dict__.setdefault("statistics", {})
        if id(hypotheses) not in known:
            found: list[Any] = []
            for start in range(0, len(hypotheses), SENTENCES_PER_REPORT):
                part = slice(start, start + SENTENCES_PER_REPORT)
                found += super()._extract_corpus_statistics(  # type: ignore[misc]
                    hypotheses[part], [stream[part] for stream in references]
                )
                self.report(len(hypotheses[part]))
            known[id(hypotheses)] = hypotheses, found  # kept, so that the id stays its own
        return known[id(hypotheses)][1]


class _Bleu(_StatisticsOnce, sacrebleu.BLEU):
    pass


class _Chrf(_StatisticsOnce, sacrebleu.CHRF):
    pass


class _Ter(_StatisticsOnce, sacrebleu.TER):
    pass


@dataclass(frozen=True)
class System:
    """A system by the name that tables show, and its hypotheses, one for each sentence."""

    name: str
    hypotheses: list[str]


@dataclass(frozen=True)
class Tested:
    """A system's score by one metric.

    Attributes:
        mean: of the bootstrap's resamples.
        interval: half the width of their 95 % interval, around the mean.
        p_bootstrap, p_randomisation: of the difference from the baseline; None for the baseline.
    """

    score: float
    mean: float
    interval: float
    p_bootstrap: float | None
    p_randomisation: float | None


@dataclass(frozen=True)
class Signatures:
    """How sacreBLEU has computed the scores of one metric in each of the two tests."""

    bootstrap: str
    randomisation: str
    more_is_better: bool


class Scorer:
    """BLEU, chrF and TER of several systems on the same sentences."""

    def __init__(self, systems: Sequence[System], references: list[str]) -> None:
        """
        Args:
            systems: the first one is the baseline.
        """
        assert all(len(system.hypotheses) == len(references) for system in systems)
        # As sacreBLEU reads them from files.
        self._systems = [
            (system.name, [text.rstrip() for text in system.hypotheses]) for system in systems
        ]
        self._references = [[text.rstrip() for text in references]]
        self._metrics: dict[str, Any] = {"BLEU": _Bleu(), "chrF2": _Chrf(), "TER": _Ter()}

    @property
    def metrics(self) -> list[str]:
        """sacreBLEU's names of the metrics."""
        return list(self._metrics)

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

    def test(self, report: Report) -> tuple[list[dict[str, Tested]], dict[str, Signatures]]:
        """Each system's scores by metric, with both tests against the first one."""
        baseline, *others = self._systems
        tests = len(others) * 2
        results: list[dict[str, Tested]] = []
        for number, other in enumerate(others):
            found: list[Any] = []
            for kind in ("bs", "ar"):
                # A test for each system: the same figures as of all at once, as each begins with
                # the same seed.
                test = PairedTest(
                    [baseline, other], self._metrics, self._references, test_type=kind
                )
                found.append(test())
                report("significance", 2 * number + len(found), tests)
            (bootstrap_signatures, bootstrap), (randomised_signatures, randomised) = found
            new = [0, 1] if number == 0 else [1]  # the baseline is in every test
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
        """A system's results by metric, from its position in the results of both tests."""
        results = {}
        for name in self._metrics:
            one, other = bootstrap[name][position], randomised[name][position]
            results[name] = Tested(
                float(one.score), float(one.mean), float(one.ci), one.p_value, other.p_value
            )
        return results

    def scores_of(self, sentences: Sequence[int]) -> list[dict[str, float]]:
        """Each system's scores by metric on some of the sentences, by their numbers from 0."""
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
