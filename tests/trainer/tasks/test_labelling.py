"""Labels of texts and words: content of batches, and scores equal to those of each text alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tasks import case_values, language_values, masked_values, prepared_task

from cluster.recipe import Recipe
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import BatchingError, CorpusError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.tasks.labelled import encode_words
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from run_store.errors import RunMismatchError
from trainer.tasks.network import build_network

CPU = torch.device("cpu")
VALUES = {"text_classification": language_values, "token_classification": case_values}
# The held-out texts are this text, which is longer than the context of 24 tokens, an empty text and
# a short text.
LONG = "Le petit chat noir de Marie est sous la grande table du jardin."


@pytest.fixture(scope="module", params=VALUES)
def opened(request, tmp_path_factory):
    """Return the data settings, the dataset, and the task with an untrained network."""
    folder = tmp_path_factory.mktemp(request.param)
    values = VALUES[request.param](folder / "dataset")
    values["data"]["train"][0]["part"] = [0, 0.005]
    values["data"]["validation"]["part"] = [0, 0.1]
    if request.param == "token_classification":
        (folder / "heldout.txt").write_text(f"{LONG}\n\nI am a student\n")
        values["data"]["validation"] = {"files": [str(folder / "heldout.txt")], "derived": "case"}
    task, dataset = prepared_task(values)
    network = task.build_network().eval()
    with torch.no_grad():  # so that some labels are predicted right and some wrong
        network.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))
    return task.recipe.data_settings, dataset, task, network


def parts_of(batch):
    """Yield the tokens of each part, with their labels."""
    bounds = pairwise([0, *np.cumsum(batch.fields["text"].lengths).tolist()])
    for a, b in bounds:
        yield tuple(batch.fields[name].ids[a:b].tolist() for name in ("text", LABELS_FIELD))


def labels_in_shards(store, manifest):
    """Return the label names of each example, as written in the shards."""
    field = manifest.fields[1].name
    shards = (unpack_shard(store.read(s.name, s.sha256, s.bytes), s) for s in manifest.shards)
    return [line.split(" ") for blocks in shards for b in blocks for line in b.sentences(field)]


def test_an_epoch_has_each_label_once_and_cuts_no_text_that_fits(opened):
    settings, (store, manifest), task, _ = opened
    reader = WindowReader(store, manifest, settings)
    found = {}
    for window in range(reader.layout(0, 0).windows_per_epoch):
        layout = reader.layout(0, window)
        batches = reader.fetch(0, window, 0, len(layout.units))
        assert layout.units.tolist() == [task.data.units(batch) for batch in batches]
        for batch in batches:
            assert set(batch.fields) == {"text", LABELS_FIELD}
            shown = task.example_texts(batch)
            for (_, labels), names in zip(parts_of(batch), shown["labels"], strict=True):
                assert names.split() == [task.labels[n] for n in labels if n != IGNORE_INDEX]
            assert (
                shown["document"][0]
                == task.tokenizers["text"].decode([next(parts_of(batch))[0]])[0]
            )
            starts = batch.starts.tolist()
            for number, start, part in zip(
                batch.pair_ids.tolist(), starts, parts_of(batch), strict=True
            ):
                found.setdefault(number, {})[start] = part
    for number, names in enumerate(labels_in_shards(store, manifest)):
        parts = [part for _, part in sorted(found.pop(number).items())]
        told = [label for _, labels in parts for label in labels if label != IGNORE_INDEX]
        assert [task.labels[label] for label in told] == names
        ids = [token for seen, _ in parts for token in seen]
        if settings.task == "text_classification":
            assert parts[0][1][0] == told[0]  # the label is at BOS, which only the first part has
            assert len(ids) <= 24
        if len(ids) <= 24:
            assert len(parts) == 1
        assert ids[0] == task.tokenizers["text"].bos_id
    assert not found


def alone(network, seen):
    """Return log-probabilities of all labels at each token of a part alone."""
    ids = torch.tensor([seen])
    zeros = torch.zeros_like(ids)
    with torch.no_grad():
        hidden = network.encoder(ids, zeros, torch.arange(len(seen)).unsqueeze(0), zeros)
        return network.logits(hidden)[0].double().log_softmax(-1)


def test_scores_equal_those_of_each_text_alone(opened):
    _, (store, manifest), task, network = opened
    heldout = load_heldout(store, manifest, "validation")
    scoring = task.scoring(heldout)
    table = np.full((scoring.rows, 2), np.nan)
    told = {}
    for number, batch in enumerate(scoring.batches):
        for row, values in scoring.score(network, batch, number, CPU):
            assert np.isnan(table[row]).all()  # each row is written once
            table[row] = values
        sums = []
        for text, start, (seen, labels) in zip(
            batch.pair_ids.tolist(), batch.starts.tolist(), parts_of(batch), strict=True
        ):
            logs = alone(network, seen)
            mine = [
                (start + n, label, -float(logs[n, label]), int(logs[n].argmax()))
                for n, label in enumerate(labels)
                if label != IGNORE_INDEX
            ]
            told.setdefault(text, []).extend(mine)
            sums.append(sum(nll for _, _, nll, _ in mine))
        found = task.example_losses(network, batch, CPU).tolist()
        assert found == pytest.approx(sums, rel=1e-5, abs=1e-6)
    rows = [row for text in sorted(told) for row in sorted(told[text])]
    nll, best = table.T
    assert nll.tolist() == pytest.approx([nll for _, _, nll, _ in rows], rel=1e-5, abs=1e-6)
    assert best.tolist() == [made for *_, made in rows]
    names = [names.split(" ") if names else [] for names in heldout.texts[manifest.fields[1].name]]
    assert [task.labels[label] for _, label, *_ in rows] == [name for n in names for name in n]
    result = scoring.summarise(table)
    scores = {name: score.value for name, score in result.scores.items()}
    assert scores.keys() == {"loss", "accuracy", "macro_f1"}
    assert scores["loss"] == pytest.approx(np.mean([nll for _, _, nll, _ in rows]), rel=1e-6)
    right = [label == made for _, label, _, made in rows]
    assert 0 < sum(right) < len(right)
    assert scores["accuracy"] == pytest.approx(100 * np.mean(right))
    assert 0 < len(result.examples) <= 3
    for shown in result.examples:
        text = heldout.texts["text"].index(shown.given)
        assert shown.expected == " ".join(names[text])
        made = [task.labels[made] for *_, made in sorted(told.get(text, []))]
        assert shown.made == " ".join(made)


def test_the_widest_batch_and_the_dummy_batch_can_be_trained_on(opened):
    settings, (_, manifest), task, network = opened
    (shape,) = task.data.widest(manifest, settings)
    most = 120 if settings.task == "text_classification" else 48
    assert str(shape) == f"{most // 24} × 24 tokens"
    for batch, tokens in ((task.synthetic(shape, CPU), most), (task.dummy(CPU), 1)):
        assert (batch.positions, batch.padding, len(batch.inputs[-1])) == (tokens, 0, tokens)
        sums = network(*batch.inputs, task.loss)
        assert sums.nll.isfinite()
        sums.smoothed.backward()
        gradients = {n: p.grad for n, p in network.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        network.zero_grad()


def test_pieces_of_words_equal_those_of_the_whole_text(opened):
    *_, task, _ = opened
    tokenizer = task.tokenizers["text"]
    (words,) = encode_words(tokenizer, [LONG.split()])
    whole = tokenizer.encode([LONG])[0].tolist()
    assert [piece for pieces in words for piece in pieces] == whole
    assert encode_words(tokenizer, [["\u200b", "a"], []])[1] == []
    assert all(encode_words(tokenizer, [["\u200b", "\U0001f600"]])[0])


def test_label_names_are_in_the_manifest_and_not_in_the_vocabulary(opened):
    settings, (_, manifest), task, _ = opened
    text, labels = manifest.fields
    assert (text.name, text.labels, labels.labels) == ("text", (), settings.data.labels)
    assert b'"labels"' not in manifest.model_dump_json(include={"fields": {0}}).encode()
    assert manifest.noun == "document"
    tokenizer = task.tokenizers["text"]
    pieces = "".join(tokenizer.piece(number) for number in range(4, tokenizer.vocabulary_size))
    assert settings.task != "token_classification" or pieces == pieces.lower()


SENTENCES = """\
Marie B-PER
Martin I-PER
sees O
Lyon B-LOC

in O
Lyon B-LOC
Paul B-PER
sleeps O
"""


def test_span_f1_of_conll_data_is_scored(tmp_path):
    (tmp_path / "a.conll").write_text(SENTENCES * 5)
    corpus = {"files": [str(tmp_path / "a.conll")]}
    values = case_values(tmp_path / "dataset")
    values["data"] = {
        "dataset": str(tmp_path / "dataset"),
        "labels": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
        "train": [corpus],
        "validation": corpus,
        "cleaning": {"drop_heldout": False},
    }
    values["tokenizer"] = {"type": "bpe", "vocabulary_size": 40}
    values["checkpoints"]["best_by"] = "span_f1"
    task, (store, manifest) = prepared_task(values)
    scoring = task.scoring(load_heldout(store, manifest, "validation"))
    assert scoring.rows == 40
    right = [task.labels.index(line.split()[1]) for line in (SENTENCES * 5).split("\n") if line]
    table = np.array([right, right], dtype=np.float64).T
    assert scoring.summarise(table).scores["span_f1"].value == 100
    table[0, 1], table[2, 1] = 0, 1  # cut a name in half, and add a false one
    scores = scoring.summarise(table).scores
    # 19 of 20 spans are right: I-PER alone is a different span, and there is a false one.
    assert scores["span_f1"].value == pytest.approx(200 * 19 / (20 + 21))
    assert scores["accuracy"].value == 95
    assert scores["span_f1"].more_is_better


def test_best_by_span_f1_is_refused_if_no_label_marks_spans(tmp_path):
    values = case_values(tmp_path / "dataset")
    values["checkpoints"]["best_by"] = "span_f1"
    with pytest.raises(ValidationError, match=r"best_by is span_f1, but data\.labels do not"):
        Recipe.of(values)


@pytest.mark.parametrize("values_of", [*VALUES.values(), masked_values])
def test_a_network_whose_predictions_do_not_fit_the_task_is_refused(tmp_path, values_of):
    if values_of is masked_values:
        recipe = Recipe.of(values_of(tmp_path, network="label_texts")).training()
        with pytest.raises(
            RunMismatchError, match="predicts labels, but the task masked_lm has no"
        ):
            build_network(recipe, {})
        return
    with pytest.raises(
        ValidationError, match=r"encoder_only, which predicts pieces, but \w+_class"
    ):
        Recipe.of(values_of(tmp_path, network="encoder_only"))


def test_a_heldout_set_without_words_is_refused(opened):
    *_, task, _ = opened
    if task.recipe.task != "token_classification":
        pytest.skip("a text without words has a label, too")
    with pytest.raises(BatchingError, match=r"of 2 texts has no word"):
        task.scoring(HeldOut({"text": ["", ""], "tags": ["", ""]}, {}))


def test_a_dataset_with_other_labels_is_refused(opened):
    settings, (store, manifest), *_ = opened
    text, labels = manifest.fields
    more = labels.model_copy(update={"labels": (*labels.labels, "more")})
    other = manifest.model_copy(update={"fields": (text, more)})
    with pytest.raises(BatchingError, match=r"has the labels .*, more, but data\.labels has"):
        WindowReader(store, other, settings)


def test_prepare_refuses_an_unknown_label_and_names_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "z"}\n')
    values = language_values(tmp_path / "dataset")
    corpus = {"files": [str(tmp_path / "a.jsonl")]}
    for train, validation in ((corpus, values["data"]["validation"]), (None, corpus)):
        values = language_values(tmp_path / "dataset")
        values["data"]["labels"] = ["en", "fr", "x"]
        values["data"]["validation"] = validation
        if train:
            values["data"]["train"] = [train]
        recipe = Recipe.of(values)
        with pytest.raises(CorpusError, match=r"a\.jsonl, line 2: the label 'z' .* en, fr, x\. Co"):
            prepare(recipe.data_settings, lambda progress: None)
        assert not (tmp_path / "dataset").exists()
