"""Chains of origins in all three model families, compared with a float64 pass in torch."""

import random
import re
from types import SimpleNamespace

import pytest
import torch
from support.live_model import ask

from model.inspection.text_trace import trace_decoder_only, trace_masked
from model.inspection.trace import trace
from transloom.observe.explain.live.packing import packed, packed_filler, packed_generator
from transloom.observe.explain.text.text_explanation import explain_continuing

pytestmark = pytest.mark.long

CHAINS, LONGEST = 60, 150
BEGINNING = re.compile(r"[EPS]\[\d+, \d+\]|(sin|cos)\(|−∞")  # a matrix row, a sine wave, or a mask
LLAMA = {"norm_kind": "rms", "activation": "swiglu", "key_value_heads": 2, "positions": "rotary"}


def tensor_at(traced, cell):
    """Return the traced tensor of a cell's head, with the page's axes."""
    part, (*path, name) = traced, cell["key"].split(".")
    for step in path:
        part = part[int(step)] if step.isdigit() else getattr(part, step)
    batched = getattr(part, re.sub(r"_(?=[a-z]+$)", "_b", name), None)
    found = getattr(part, name) if batched is None else batched[0]
    return found if cell["head"] is None else found[cell["head"]]


def check_chains(model, asked, tmp_path, traced):
    """Assert that all numbers of random chains are right, and that chains end at parameters."""
    seed = random.randrange(10**6)
    draw = random.Random(seed)

    def numbers(count):
        return [draw.randrange(10**6) for _ in range(count)]

    draws = [[*numbers(1), numbers(3), numbers(LONGEST)] for _ in range(CHAINS)]
    (chains,) = ask(model, tmp_path, ("chains", {**asked, "draws": draws}))
    assert len(chains) == CHAINS
    for chain in chains:
        for cell in chain:
            expected = tensor_at(traced, cell)
            number, value = expected[cell["row"], cell["column"]].item(), float(cell["value"])
            close = 2e-5 * expected[expected.isfinite()].abs().max().item()
            assert value == number or abs(value - number) <= close, (seed, cell, number)
        assert BEGINNING.match(chain[-1]["formula"]), (seed, chain[-1])
    assert max(map(len, chains)) > 8


@pytest.mark.parametrize("settings", [{}, {"norm": "pre", **LLAMA}], ids=["post", "llama"])
def test_origin_chains_of_a_translation_model_equal_float64(translator_of, tmp_path, settings):
    made = translator_of(**settings)
    source, target = made.source_ids("je suis étudiant"), [made.model.vocabulary.bos_id, 9, 8, 7]
    traced = trace(made.model.double(), torch.tensor([source]), torch.tensor([target]))
    made.model.float()
    check_chains(packed(made), {"source": source, "target": target}, tmp_path, traced)


@pytest.mark.parametrize("form", [{"preset": "gpt2"}, {"preset": "llama", "key_value_heads": 2}])
def test_origin_chains_of_a_language_model_equal_float64(generator_of, tmp_path, form):
    generator = generator_of(**form)
    ids, model = explain_continuing(generator, "the cat").pieces.ids, packed_generator(generator)
    traced = trace_decoder_only(generator.network.double(), ids)
    passed = SimpleNamespace(**{**vars(traced), "decoder": traced.stack})
    check_chains(model, {"text": "the cat"}, tmp_path, passed)


@pytest.mark.parametrize("form", [{"preset": "bert"}, {"norm": "pre", "segments": 0}])
def test_origin_chains_of_a_masked_model_equal_float64(filler_of, tmp_path, form):
    filler, text = filler_of(**form), "the [MASK] is[MASK]"
    filler.pairs = "preset" in form
    text += " ||| a [MASK]" if filler.pairs else ""
    row, model = filler.row(text), packed_filler(filler)
    places = [n for n, one in enumerate(row.ids) if one == model["mask"]]
    network = filler.network.double()
    traced = trace_masked(network, row.ids, places, row.segments, row.positions)
    passed = {"logits_tv": traced.logits_nv, "probabilities_tv": traced.probabilities_nv}
    passed |= {"encoder": traced.stack, "states_nm": traced.stack.output_btm[0, places]}
    check_chains(model, {"text": text}, tmp_path, SimpleNamespace(**{**vars(traced), **passed}))
