"""Choice of checkpoint, beam size and length penalty on the validation set.

    checkpoints × beam sizes ─▶ one search for each ─▶ translations by each length penalty ─▶ scores
        ─▶ best point ─▶ all points without significant difference from it ─▶ the smallest beam

A point is a combination of checkpoint, beam size and length penalty. A length penalty changes only
the order of finished hypotheses, so one search serves all length penalties. The result is stored in
the run folder as tuned-decoding.json: `TunedDecoding`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.data import DataConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.regular_files import write_atomically
from foundation.file_model import Count, FileModel
from foundation.wording import join_items
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.format import HEADER
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from trainer.errors import TranslationError
from transloom.inference.engine_names import Precision
from transloom.inference.evaluation import MOSES_SIGNATURE, dataset_of, moses
from transloom.inference.sentence_memory import LongSentenceError
from transloom.inference.significance import Metric, OneMetric, Report
from transloom.inference.translator import Translator

VALIDATION: Literal["validation"] = "validation"

# Significance level: a difference with this p value, or a larger one, may be due to chance.
NOISE_P = 0.05


@dataclass(frozen=True)
class Grid:
    """Settings to try: every combination of a beam size and a length penalty."""

    beam_sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10)
    length_penalties: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


class DecodingPoint(FileModel):
    """One combination of settings, and its score on the validation set.

    Attributes:
        checkpoint: name of the checkpoint folder.
        p: p value of the difference from the best point, by paired bootstrap; 1 if all translations
            are equal.
        length_ratio: characters of the translations divided by those of the references, or None in
            files of versions that did not compute it.
    """

    checkpoint: str
    beam_size: Count
    length_penalty: float
    score: float
    p: float
    length_ratio: float | None = None

    @property
    def as_good_as_best(self) -> bool:
        """True if the difference from the best point is not significant."""
        return self.p >= NOISE_P


class TunedDecoding(FileModel):
    """Contents of tuned-decoding.json: all points that were tried, and the recommended one.

    Attributes:
        at: time of the result, in UTC.
        checkpoints: the sha256 of each checkpoint's checkpoint.json, by the checkpoint's name.
        recipe: the decoding options of the run's recipe, which apply where a point sets none.
        best: the point with the highest score.
        recommended: the point with the smallest beam among those without significant difference
            from the best one. Ties are decided by the length penalty nearest to the recipe's,
            then by the highest score.
    """

    version: Literal[1] = 1
    at: str
    metric: Metric
    signature: str
    dataset_identity: str
    test_set: Literal["validation"] = VALIDATION
    sentences: Count
    sources_sha256: str
    references_sha256: str
    checkpoints: dict[str, str]
    precision: Precision
    recipe: dict[str, Any]
    noise_p: float = NOISE_P
    points: list[DecodingPoint]
    best: DecodingPoint
    recommended: DecodingPoint

    @property
    def at_the_edge(self) -> bool:
        """True if the best length penalty is the largest one tried; a larger one may be better."""
        largest = max(point.length_penalty for point in self.points)
        return self.best.beam_size > 1 and self.best.length_penalty == largest > 0


@dataclass(frozen=True)
class _Tried:
    """Point whose translations are not scored yet."""

    checkpoint: str
    beam_size: int
    length_penalty: float
    texts: list[str]


class DecodingTuner:
    """Grid search on the validation set of a run's dataset."""

    def __init__(
        self, first: Checkpoint, dataset: DataConfig, grid: Grid, metric: Metric, report: Report
    ) -> None:
        """Load the validation set of the run's dataset.

        Args:
            first: one of the run's checkpoints.
            dataset: location of the run's dataset.

        Raises:
            RunMismatchError: the run was trained on another dataset, or the validation set is also
                a test set.
            DatasetError: the dataset does not exist, or it has no validation set.
        """
        store, self._manifest = dataset_of(first, dataset)
        _require_apart(self._manifest)
        self._grid, self._report = grid, report
        self._heldout = load_heldout(store, self._manifest, VALIDATION)
        self._scorer = _Scorer(metric, self._heldout, self._manifest)
        self._metric: Metric = metric
        self._tried: list[_Tried] = []
        self._checkpoints: dict[str, str] = {}
        self._precision: Precision = "fp32"
        self._recipe: dict[str, Any] = {}

    def try_out(self, translator: Translator, processes: int | None = None) -> None:
        """Translate the validation set with one checkpoint and all settings of the grid.

        Args:
            processes: number of parallel processes, or None to choose it automatically.

        Raises:
            TranslationError: memory does not suffice for a sentence.
        """
        sources, tag = self._heldout.texts[SOURCE], self._heldout.tags.get(SOURCE)
        beams, penalties = self._grid.beam_sizes, self._grid.length_penalties
        name = translator.checkpoint.path.name
        self._checkpoints[name] = sha256_of(translator.checkpoint.path / HEADER)
        self._precision = translator.precision
        self._recipe = translator.decoding.model_dump(mode="json")
        total = len(sources) * len(beams)
        self._report(f"translating with {name}", 0, total)
        try:
            with translator.in_processes(processes or translator.processes_for(total)):
                for number, beam_size in enumerate(beams):
                    earlier = number * len(sources)
                    translator.decoding = translator.decoding.model_copy(
                        update={"beam_size": beam_size}
                    )
                    found = translator.translate_by_penalties(
                        sources,
                        penalties,
                        tag,
                        lambda done, earlier=earlier: self._report(  # type: ignore[misc]
                            f"translating with {name}", earlier + done, total
                        ),
                    )
                    self._tried += [
                        _Tried(name, beam_size, alpha, texts)
                        for alpha, texts in zip(penalties, found, strict=True)
                    ]
        except LongSentenceError as error:
            raise TranslationError(f"The validation set cannot be translated: {error}") from error

    def judge(self) -> TunedDecoding:
        """Score all points, and choose the best and the recommended one."""
        tried = self._tried
        scores = []
        for one in tried:
            scores.append(self._scorer.score(one.texts))
            self._report("scoring", len(scores), len(tried))
        usual = float(self._recipe["length_penalty"])

        def rank(number: int) -> tuple[float, int, float]:
            """Rank by higher score, then by smaller beam, then by a penalty near the recipe's."""
            one = tried[number]
            return scores[number], -one.beam_size, -abs(one.length_penalty - usual)

        best = max(range(len(tried)), key=rank)
        points = list(self._points(scores, best))
        files = self._manifest.heldout[VALIDATION].files
        return TunedDecoding(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            metric=self._metric,
            signature=self._scorer.signature,
            dataset_identity=self._manifest.identity,
            sentences=len(self._heldout),
            sources_sha256=files[SOURCE].sha256,
            references_sha256=files[TARGET].sha256,
            checkpoints=self._checkpoints,
            precision=self._precision,
            recipe=self._recipe,
            points=points,
            best=points[best],
            recommended=recommended_point(points, usual),
        )

    def _points(self, scores: Sequence[float], best: int) -> Iterator[DecodingPoint]:
        p_values = self._scorer.p_values(self._tried[best].texts, (t.texts for t in self._tried))
        tested = zip(self._tried, scores, p_values, strict=True)
        for number, (one, score, p) in enumerate(tested, start=1):
            yield DecodingPoint(
                checkpoint=one.checkpoint,
                beam_size=one.beam_size,
                length_penalty=one.length_penalty,
                score=score,
                p=p,
                length_ratio=self._scorer.length_ratio(one.texts),
            )
            self._report("significance", number, len(scores))


def recommended_point(points: Sequence[DecodingPoint], usual: float) -> DecodingPoint:
    """Return the recommended point, as `TunedDecoding.recommended` defines it.

    Args:
        points: all points, including the best one.
        usual: the recipe's length penalty.
    """

    def rank(point: DecodingPoint) -> tuple[int, float, float]:
        return -point.beam_size, -abs(point.length_penalty - usual), point.score

    return max((point for point in points if point.as_good_as_best), key=rank)


def write_tuned_decoding(run: RunFolder, tuned: TunedDecoding) -> None:
    """Write the result into the run folder, replacing an earlier one."""
    write_atomically(run.tuned_decoding, tuned.model_dump_json(indent=1) + "\n")


class _Scorer:
    """Scorer of translations of the validation set with one metric."""

    def __init__(self, metric: Metric, heldout: HeldOut, manifest: Manifest) -> None:
        self._language: str | None = None
        if metric == "bleu_literature":
            self._language = next(f.language for f in manifest.fields if f.name == TARGET)
        self._tokens: dict[str, str] = {}
        self._reference_characters = sum(map(len, heldout.texts[TARGET]))
        self._metric = OneMetric(metric, self._prepared(heldout.texts[TARGET]))

    @property
    def signature(self) -> str:
        """Signature of the scores, complete after the first call of `score`."""
        prefix = "" if self._language is None else MOSES_SIGNATURE
        return prefix + self._metric.signature

    def score(self, texts: Sequence[str]) -> float:
        return self._metric.score(self._prepared(texts))

    def length_ratio(self, texts: Sequence[str]) -> float:
        return sum(map(len, texts)) / max(1, self._reference_characters)

    def p_values(self, baseline: Sequence[str], others: Iterable[Sequence[str]]) -> Iterator[float]:
        return self._metric.p_values(self._prepared(baseline), map(self._prepared, others))

    def _prepared(self, texts: Sequence[str]) -> Sequence[str]:
        """Return the texts in the form that the metric needs; tokenise each distinct text once."""
        if self._language is None:
            return texts
        new = list(dict.fromkeys(text for text in texts if text not in self._tokens))
        self._tokens.update(zip(new, moses(new, self._language), strict=True))
        return [self._tokens[text] for text in texts]


def _require_apart(manifest: Manifest) -> None:
    """Check that no test set has the same sources as the validation set.

    Raises:
        RunMismatchError: a test set has the same sources.
    """
    ours = manifest.heldout[VALIDATION].files if VALIDATION in manifest.heldout else None
    same = [
        name
        for name, info in manifest.heldout.items()
        if ours and name != VALIDATION and info.files[SOURCE].sha256 == ours[SOURCE].sha256
    ]
    if same:
        raise RunMismatchError(
            "The dataset's validation set has the same sources as its test set "
            f"{join_items(same)}. Settings that are chosen on a test set inflate its scores. "
            "Prepare a dataset with a separate validation set in data.validation"
        )
