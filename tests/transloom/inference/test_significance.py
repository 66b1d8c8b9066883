"""Scores and significance tests equal those of the command `sacrebleu` on the same files."""

import json
import random

import pytest
import sacrebleu
from sacrebleu.significance import PairedTest
from support.command import run_python

from transloom.inference.significance import OneMetric, Scorer

pytestmark = pytest.mark.long

WORDS = [
    "a",
    "man",
    "in",
    "a",
    "blue",
    "shirt",
    "is",
    "standing",
    "on",
    "a",
    "ladder",
    "cleaning",
    "the",
    "old",
    "red",
    "window",
    "today",
]


def sentences(seed, count=60):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 14))) + "." for _ in range(count)]


def noisy(references, seed, share):
    """Return references in which a share of the words is replaced by random words."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(WORDS) if draw.random() < share else w for w in text.split())
        for text in references
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write references and hypotheses of three systems; return the folder and the texts."""
    folder = tmp_path_factory.mktemp("files")
    references = sentences(1)
    texts = {
        "ref": references,
        "base": noisy(references, 2, 0.3),
        "better": noisy(references, 3, 0.15),
        "other": ["", *noisy(references, 4, 0.3)[1:-1], "spaces at the end \u3000 "],
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder, texts


@pytest.fixture(scope="module")
def ours(files):
    _, texts = files
    systems = [(name, texts[name]) for name in ("base", "better", "other")]
    return Scorer(systems, texts["ref"])


# The command; sacreBLEU 2.6.0 cannot write numpy's numbers as JSON.
SACREBLEU = """
import json
json.JSONEncoder.default = lambda self, number: number.item()
from sacrebleu.sacrebleu import main
main()
"""


def by_sacrebleu(folder, test):
    systems = ("-i", "base", "better", "other")
    metrics = ["-m", "bleu", "chrf", "ter", f"--paired-{test}", "--format", "json"]
    done = run_python(SACREBLEU, "ref", *systems, *metrics, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_scores_and_p_values_equal_those_of_sacrebleu(files, ours):
    """The command tests all systems together; `Scorer` tests one after the other."""
    folder, _ = files
    results, signatures = ours.test(lambda what, done, total: None)
    for test, field in (("bs", "p_bootstrap"), ("ar", "p_randomisation")):
        for expected, found in zip(by_sacrebleu(folder, test), results, strict=True):
            for metric, tested in found.items():
                there = expected[metric]
                assert there["score"] == pytest.approx(tested.score, abs=1e-12), metric
                assert there["p_value"] == getattr(tested, field), (metric, test)
                if test == "bs":
                    assert there["mean"] == pytest.approx(tested.mean, abs=1e-12)
                    assert there["ci"] == pytest.approx(tested.interval, abs=1e-12)
    assert signatures["BLEU"].bootstrap.startswith("nrefs:1|bs:1000|seed:12345|case:mixed")
    assert "ar:10000" in signatures["TER"].randomisation
    assert [found.more_is_better for found in signatures.values()] == [True, True, False]


def test_only_a_better_system_differs_significantly_from_the_baseline(ours):
    (_, better, other), _ = ours.test(lambda what, done, total: None)
    assert max(better["BLEU"].p_bootstrap, better["BLEU"].p_randomisation) < 0.01
    assert other["BLEU"].p_randomisation > 0.05


def test_scores_of_some_sentences_equal_those_of_sacrebleu(files, ours):
    _, texts = files
    part = [3, 17, 40, 59]
    references = [[texts["ref"][number] for number in part]]
    for name, found in zip(("base", "better", "other"), ours.scores_of(part), strict=True):
        hypotheses = [texts[name][number].rstrip() for number in part]
        for metric in (sacrebleu.BLEU(), sacrebleu.CHRF(), sacrebleu.TER()):
            score = metric.corpus_score(hypotheses, references)
            assert found[score.name] == pytest.approx(score.score, abs=1e-12)


def test_statistics_of_equal_hypotheses_are_computed_only_once(files, monkeypatch):
    _, texts = files
    computed = []
    compute = sacrebleu.TER._compute_segment_statistics

    def counting(self, hypothesis, known):
        computed.append(hypothesis)
        return compute(self, hypothesis, known)

    monkeypatch.setattr(sacrebleu.TER, "_compute_segment_statistics", counting)
    systems = [(name, texts[name]) for name in ("base", "better", "other")]
    scorer, reports = Scorer(systems, texts["ref"]), []
    scorer.compute_statistics(lambda *report: reports.append(report))
    scorer.test(lambda *report: reports.append(report))
    scorer.scores_of([1, 2])
    different = {(n, t.rstrip()) for _, lines in systems for n, t in enumerate(lines)}
    assert len(computed) == len(different) < 3 * 60
    assert [report for report in reports if report[0] == "TER of base"] == [
        ("TER of base", 20, 60),
        ("TER of base", 40, 60),
        ("TER of base", 60, 60),
    ]
    assert reports[-1] == ("significance", 4, 4)


@pytest.mark.parametrize("metric", ["bleu", "chrf", "bleu_literature"])
def test_scores_and_p_values_of_one_metric_equal_those_of_sacrebleu(files, metric):
    _, texts = files
    theirs = {
        "bleu": sacrebleu.BLEU(),
        "chrf": sacrebleu.CHRF(),
        "bleu_literature": sacrebleu.BLEU(tokenize="none", force=True),
    }[metric]
    systems = [texts[name] for name in ("base", "better", "other", "base")]
    ours = OneMetric(metric, texts["ref"])
    found = list(ours.p_values(systems[0], systems))
    named = [(str(n), [text.rstrip() for text in system]) for n, system in enumerate(systems[:3])]
    _, results = PairedTest(named, {"it": theirs}, [texts["ref"]], test_type="bs")()
    results.pop("System")
    (expected,) = results.values()
    assert [found[0], found[3]] == [1.0, 1.0]  # the baseline's texts
    assert found[1:3] == [result.p_value for result in expected[1:]]
    assert [ours.score(system) for system in systems[:3]] == [result.score for result in expected]
    assert ours.signature == str(theirs.get_signature())
