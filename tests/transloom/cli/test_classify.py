"""`transloom classify` and `evaluate` with text classifiers and word taggers."""

import hashlib
from io import BytesIO, TextIOWrapper

import pytest
import torch
from support.invocation import json_lines_of, lines_of
from support.runs import trained_run
from support.tasks import case_values, language_values, masked_values

import transloom as transloom_module
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from run_store.errors import RunMismatchError
from transloom.cli import classify
from transloom.inference.labeller import Labeller
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_input import read_texts

LONG = "Le petit chat noir de Marie est sous la grande table du jardin. Il dort encore."


def trained(folder, values):
    values["data"]["train"][0]["part"] = [0, 0.05]
    return trained_run(values, folder, 12)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """Return a run that was trained briefly to distinguish English from French texts."""
    folder = tmp_path_factory.mktemp("language")
    return trained(folder, language_values(folder / "dataset"))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Return a run that was trained briefly to label the original case of lower-cased words."""
    folder = tmp_path_factory.mktemp("case")
    return trained(folder, case_values(folder / "dataset"))


def probabilities(labeller, ids, places):
    """Return the probabilities of all labels at some positions of a text, as a batch of one."""
    ids = torch.tensor([ids])
    zeros = torch.zeros_like(ids)
    with torch.no_grad():
        hidden = labeller.network.encoder(ids, zeros, torch.arange(ids.shape[1])[None], zeros)
        return labeller.network.logits(hidden)[0, places].softmax(-1)


def test_classify_prints_the_networks_probabilities_of_each_text(transloom, language):
    texts = ["the cat", LONG, ""]
    found = json_lines_of(transloom("classify", language, *texts, "--json"))
    labeller = Labeller.load(language)
    tokenizer = labeller.tokenizer
    for text, one in zip(texts, found, strict=True):
        ids = [tokenizer.bos_id, *tokenizer.encode([text])[0].tolist(), tokenizer.eos_id]
        (expected,) = probabilities(labeller, ids[:24], [0])
        shown = one["probabilities"]
        assert shown == pytest.approx(dict(zip(("fr", "en"), expected.tolist(), strict=True)))
        assert list(shown) == sorted(shown, key=shown.__getitem__, reverse=True)
        assert one["label"] == next(iter(shown))
        assert (one["text"], one["tokens"], one["read"]) == (text, len(ids), min(24, len(ids)))
    plain = transloom("classify", language, *texts)
    assert lines_of(plain) == [one["label"] for one in found]
    assert "only the first 24 tokens of 1 text, because" in " ".join(plain.stderr.split())


def test_classify_labels_words_of_texts_longer_than_the_context(transloom, case):
    texts = [LONG, "", "I  see Marie"]
    found = json_lines_of(transloom("classify", case, *texts, "--json"))
    labeller = Labeller.load(case)
    tokenizer = labeller.tokenizer
    for text, one in zip(texts, found, strict=True):
        words = text.split()
        assert [word["word"] for word in one["words"]] == words
        ids, firsts = [tokenizer.bos_id], []
        for number, word in enumerate(words):
            firsts.append(len(ids))
            ids += tokenizer.encode([" " * bool(number) + word.lower()])[0].tolist()
        ids.append(tokenizer.eos_id)
        expected = [
            row
            for start in range(0, len(ids), 24)
            for row in probabilities(
                labeller,
                ids[start : start + 24],
                [first - start for first in firsts if start <= first < start + 24],
            )
        ]
        best = [row.max(dim=0) for row in expected]
        assert [word["label"] for word in one["words"]] == [
            labeller.labels[b.indices] for b in best
        ]
        shown = [word["probability"] for word in one["words"]]
        assert shown == pytest.approx([float(b.values) for b in best], rel=1e-4)
    plain = lines_of(transloom("classify", case, "I see", "Marie"))
    assert [line.split("\t")[0] for line in plain] == ["I", "see", "", "Marie", ""]


@pytest.mark.parametrize("run", ["language", "case"])
def test_labels_do_not_depend_on_the_other_texts_of_a_batch(request, run, monkeypatch):
    labeller = Labeller.load(request.getfixturevalue(run))
    texts = ["the cat is here", "a", LONG, "", "le chat"]
    label = labeller.tag if labeller.of_words else labeller.label
    together = label(texts)
    monkeypatch.setattr("transloom.inference.batch_size.TEXTS_AT_ONCE", 1)
    assert len(together) == len(texts)
    for one, alone in zip(together, label(texts), strict=True):
        if labeller.of_words:
            assert [w.label for w in one.words] == [w.label for w in alone.words]
            found, expected = ([w.probability for w in each.words] for each in (one, alone))
        else:
            assert one.label == alone.label
            found, expected = (list(each.probabilities.values()) for each in (one, alone))
        assert found == pytest.approx(expected, rel=1e-4)


def test_classify_reads_texts_from_a_file_or_from_stdin(transloom, language, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("the cat\nle chat\r\n")
    given = lines_of(transloom("classify", language, "the cat", "le chat"))
    monkeypatch.setattr(classify, "TEXTS_AT_ONCE", 1)
    monkeypatch.setattr(classify, "MIN_TEXTS_FOR_PROGRESS", 2)
    result = transloom("classify", language, "--input", tmp_path / "texts.txt")
    assert lines_of(result) == given
    assert "classify" in result.stderr
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"the cat\n"), encoding="latin-1"))
    assert read_texts([], None) == ["the cat"]
    both = transloom("classify", language, "a", "--input", tmp_path / "texts.txt")
    assert both.exit_code == 2
    assert "leave out one" in " ".join(both.stderr.replace("│", " ").split())


@pytest.mark.long
def test_the_python_api_returns_the_same_labels_as_the_command(transloom, case):
    texts = ["the cat\nis here", "-- le chat", "[MASK]"]
    given = [text.replace("\n", " ") for text in texts]
    expected = json_lines_of(transloom("classify", case, "--json", "--", *given))
    assert transloom_module.Run(case).classify(texts) == expected
    with pytest.raises(transloom_module.TransloomError, match="no run"):
        transloom_module.Run(case.parent).classify(texts)


def test_a_classifier_refuses_the_methods_of_other_tasks(transloom, language, case):
    with pytest.raises(RunMismatchError, match=r"labels texts, so use label"):
        Labeller.load(language).tag(["a"])
    with pytest.raises(RunMismatchError, match=r"labels words, so use tag"):
        Labeller.load(case).label(["a"])
    with pytest.raises(RunMismatchError, match=r"use transloom classify for this run"):
        MaskFiller.load(language)


@pytest.mark.long
def test_a_classifier_can_start_from_the_encoder_of_a_masked_model(tmp_path):
    masked = trained(tmp_path, masked_values(tmp_path / "masked"))
    model = tmp_path / "masked" / "tokenizer.model"
    values = language_values(tmp_path / "language")
    values["tokenizer"] = {
        "vocabulary_size": SentencePieceTokenizer.load(model).vocabulary_size,
        "model": str(model),
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    values["trainer"] |= {"init_from": str(masked), "frozen": ["encoder.*"]}
    (tmp_path / "head").mkdir()
    run = trained(tmp_path / "head", values)
    theirs = MaskFiller.load(masked).network.encoder.state_dict()
    ours = Labeller.load(run).network.encoder.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.items())
    assert "Newly initialized: pooler.weight" in (run / "log.txt").read_text()


def test_data_info_lists_the_labels_of_a_dataset(transloom, language, case):
    for run, told in (
        (language, "label, of 2 labels: fr, en"),
        (case, "tags, of 4 labels: lower, title, upper, mixed"),
    ):
        found = transloom("data", "info", run.parent / "dataset")
        assert told in found.stdout
        assert found.stdout.count("tokens with EOS") == 1


def test_classifiers_can_be_evaluated_and_shown_as_a_figure(transloom, language, case):
    for run, labels in ((language, 2), (case, 4)):
        result = transloom("evaluate", run, "--set", "phrasebook", "--json")
        (scores,) = json_lines_of(result)
        assert {"loss", "accuracy", "macro_f1"} == scores["phrasebook"].keys()
        (said,) = json_lines_of(transloom("model", "show", run, "--json"))
        network = Labeller.load(run).network
        assert said["blueprint"]["parameters"] == sum(p.numel() for p in network.parameters())
        assert network.labels == labels
