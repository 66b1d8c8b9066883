"""`transloom fill` and `evaluate` with masked models of texts and of sentence pairs."""

from io import BytesIO, TextIOWrapper

import pytest
import torch
from support.invocation import json_lines_of, lines_of
from support.runs import trained_run
from support.tasks import masked_values, pair_masked_values
from support.walk import page_in_file

from data_pipeline.tasks.masked_text import masked_ids
from run_store.errors import RunMismatchError
from trainer.errors import TextError
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.inference.text_input import read_texts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a briefly trained run with a vocabulary of words."""
    folder = tmp_path_factory.mktemp("masked")
    values = masked_values(folder / "dataset")
    for corpus in values["data"]["train"]:
        corpus["part"] = [0, 0.05]
    values["tokenizer"] = {"type": "unigram", "vocabulary_size": 120, "byte_fallback": False}
    return trained_run(values, folder, 6)


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory):
    """Return a briefly trained run on sentence pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    return trained_run(pair_masked_values(folder / "dataset"), folder, 6)


def test_fill_prints_the_networks_most_probable_pieces(transloom, run):
    text = "the [MASK] is[MASK]"
    (found,) = json_lines_of(transloom("fill", run, text, "--json"))
    filler = MaskFiller.load(run)
    tokenizer, network = filler.tokenizer, filler.network
    mask = tokenizer.tag_id("<mask>")
    the, is_ = (tokenizer.encode([word])[0].tolist() for word in ("the", " is"))
    ids = torch.tensor([[tokenizer.bos_id, *the, mask, *is_, mask, tokenizer.eos_id]])
    zeros = torch.zeros_like(ids)
    with torch.no_grad():
        hidden = network.encoder(ids, zeros, torch.arange(ids.shape[1])[None], zeros)
        probabilities = network.logits(hidden)[ids == mask].softmax(-1)
    probabilities[:, [*range(4), mask]] = 0
    assert [len(candidates) for candidates in found["masks"]] == [3, 3]
    for candidates, row in zip(found["masks"], probabilities, strict=True):
        values, best = row.topk(3)
        assert [each["piece"] for each in candidates] == [tokenizer.piece(n) for n in best.tolist()]
        shown = [each["probability"] for each in candidates]
        assert shown == pytest.approx(values.tolist(), rel=1e-5)
        ids[ids == mask] = torch.where(torch.arange((ids == mask).sum()) == 0, best[0], mask)
    assert found["text"] == text
    assert found["filled"] == tokenizer.decode(ids.tolist())[0]


def test_candidates_do_not_depend_on_the_other_texts_of_a_batch(transloom, run, monkeypatch):
    texts = ["the [MASK]", "[MASK]", "the small [MASK] is here[MASK]"]
    together = json_lines_of(transloom("fill", run, *texts, "--json", "--candidates", 2))
    monkeypatch.setattr("transloom.inference.batch_size.TEXTS_AT_ONCE", 1)
    apart = json_lines_of(transloom("fill", run, *texts, "--json", "--candidates", 2))
    for one, other in zip(together, apart, strict=True):
        for mine, theirs in zip(one.pop("masks"), other.pop("masks"), strict=True):
            assert [each["piece"] for each in mine] == [each["piece"] for each in theirs]
            for each, expected in zip(mine, theirs, strict=True):
                assert each["probability"] == pytest.approx(expected["probability"], rel=1e-4)
        assert one == other


def test_fill_prints_readable_lines_and_reads_standard_input(transloom, run, monkeypatch):
    found = lines_of(transloom("fill", run, "the [MASK]"))
    assert found[0].startswith("the")
    assert found[1].startswith("    [MASK] 1: ")
    assert found[1].count("%") == 3
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"the [MASK]\n"), encoding="latin-1"))
    assert read_texts([]) == ["the [MASK]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the cat", r"Text 2 has no \[MASK\]"),
        ("a cat " * 20 + "[MASK]", r"learned only 24 positions"),
    ],
)
def test_fill_refuses_a_text_without_a_mask_or_with_too_many_tokens(transloom, run, text, message):
    with pytest.raises(TextError, match=message):
        transloom("fill", run, "[MASK]", text)


def test_a_masked_model_is_evaluated_but_refused_by_the_text_generator(transloom, run):
    result = transloom("evaluate", run, "--set", "phrasebook")
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.output
    with pytest.raises(
        RunMismatchError, match=r"for masked_lm, .*: use transloom fill for this run"
    ):
        TextGenerator.load(run)


def test_the_figure_of_a_masked_model_has_all_parameters_in_boxes(transloom, run):
    (said,) = json_lines_of(transloom("model", "show", run, "--json"))
    assert said["vocabulary_from"] == "dataset"
    count = sum(p.numel() for p in MaskFiller.load(run).network.parameters())
    assert sum(said["parameters_by_box"].values()) == said["blueprint"]["parameters"] == count


def test_translate_refuses_a_masked_model_and_suggests_fill(transloom, run, tmp_path):
    (tmp_path / "text").write_text("the\n")
    with pytest.raises(
        RunMismatchError, match=r"for masked_lm, .*: use transloom fill for this run"
    ):
        transloom("translate", run, tmp_path / "text")


def test_explain_writes_a_page_about_a_masked_text(transloom, run, tmp_path):
    text, file = "the [MASK] is[MASK]", tmp_path / "page.html"
    (said,) = json_lines_of(transloom("explain", run, text, "--output", file, "--json"))
    (found,) = MaskFiller.load(run).fill([text])
    assert (said["made"], said["steps"], said["file"]) == (found.filled, 2, str(file))
    assert file.stat().st_size == said["bytes"]
    said = lines_of(transloom("explain", run, text, "--output", file))
    assert said[0] == f"{text} → {found.filled}"
    assert said[-1] == str(file)


@pytest.mark.parametrize(
    ("option", "value"), [("--tag", "@3"), ("--against", "@3"), ("--max-tokens", "30")]
)
def test_explain_refuses_translation_options_for_a_masked_model(transloom, run, option, value):
    with pytest.raises(RunMismatchError, match=f"{option} is only for translation runs"):
        transloom("explain", run, "the [MASK]", option, value)
    assert not (run / "explain.html").exists()


PAIRS = {
    "both": "le [MASK] est ici ||| the man is [MASK]",
    "source": "le [MASK] est ici",
    "target": "||| the man is [MASK]",
}


@pytest.mark.long
@pytest.mark.parametrize("text", PAIRS.values(), ids=PAIRS.keys())
def test_fill_reads_a_pair_with_the_segments_and_positions_of_training(transloom, pair_run, text):
    (found,) = json_lines_of(transloom("fill", pair_run, text, "--json"))
    filler = MaskFiller.load(pair_run)
    tokenizer, network = filler.tokenizer, filler.network
    ids, segments, positions = [], [], []
    for segment, side in enumerate(text.split("|||")):
        if side:
            pieces = masked_ids(tokenizer, side.strip())
            ids += [tokenizer.bos_id, *pieces, tokenizer.eos_id]
            segments += [segment] * (len(pieces) + 2)
            positions += range(len(pieces) + 2)
    ids, segments, positions = torch.tensor([[ids], [segments], [positions]])
    with torch.no_grad():
        hidden = network.encoder(ids, segments, positions, torch.zeros_like(ids))
        probabilities = network.logits(hidden)[ids == tokenizer.tag_id("<mask>")].softmax(-1)
    assert len(found["masks"]) == len(probabilities) == text.count("[MASK]")
    for candidates, row in zip(found["masks"], probabilities, strict=True):
        for each in candidates:
            number = [tokenizer.piece(n) for n in range(len(row))].index(each["piece"])
            assert each["probability"] == pytest.approx(float(row[number]), rel=1e-4)
    assert ("|||" in found["filled"]) == (text == PAIRS["both"])
    assert "[MASK]" not in found["filled"]


def test_candidates_for_a_pair_do_not_depend_on_other_texts(transloom, pair_run):
    together = json_lines_of(transloom("fill", pair_run, *PAIRS.values(), "--json"))
    for text, found in zip(PAIRS.values(), together, strict=True):
        (alone,) = json_lines_of(transloom("fill", pair_run, text, "--json"))
        for mine, theirs in zip(found["masks"], alone["masks"], strict=True):
            assert [each["piece"] for each in mine] == [each["piece"] for each in theirs]
            assert [each["probability"] for each in mine] == pytest.approx(
                [each["probability"] for each in theirs], rel=1e-4
            )


def test_fill_refuses_a_third_side_and_a_side_that_is_too_long(transloom, pair_run):
    with pytest.raises(TextError, match=r"Text 1 has \|\|\| 2 times"):
        transloom("fill", pair_run, "un [MASK] ||| a cat ||| eine Katze")
    side = "un chat " * 7
    (found,) = json_lines_of(transloom("fill", pair_run, f"{side}||| {side}[MASK]", "--json"))
    assert found["masks"]
    with pytest.raises(TextError):
        transloom("fill", pair_run, f"{side * 3}||| a [MASK]")


@pytest.mark.long
def test_a_masked_model_of_pairs_is_evaluated_and_exported(transloom, pair_run):
    result = transloom("evaluate", pair_run, "--set", "phrasebook")
    assert result.exit_code == 0, result.output
    assert "alone_loss" in result.output
    assert transloom("export", pair_run, pair_run.parent / "bert").exit_code == 0
    assert "fr and en" in (pair_run.parent / "bert" / "README.md").read_text()
    (said,) = json_lines_of(transloom("model", "show", pair_run, "--json"))
    count = sum(p.numel() for p in MaskFiller.load(pair_run).network.parameters())
    assert sum(said["parameters_by_box"].values()) == count


def test_explain_shows_positions_and_segments_of_each_side_of_a_pair(transloom, pair_run, tmp_path):
    text, file = "le [MASK] ||| a cat", tmp_path / "page.html"
    (said,) = json_lines_of(transloom("explain", pair_run, text, "--output", file, "--json"))
    (found,) = MaskFiller.load(pair_run).fill([text])
    assert (said["made"], said["steps"]) == (found.filled, 1)
    page = page_in_file(file)
    assert said["sections"] == len(page.sections)
    positions = page.sections[2].figure("+ positions")["rows"]
    assert positions.count("position 0") == 2
    segments = page.sections[2].figure("+ segments")["values"]
    second = positions.index("position 0", 1)
    assert segments[0] == segments[second - 1] != segments[second] == segments[-1]
