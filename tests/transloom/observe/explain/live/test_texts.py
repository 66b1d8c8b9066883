"""Language models and masked models in the page, compared with the Python models."""

import random

import pytest
import torch
from support.covering import covering_cases
from support.live_model import ask, compare

from data_pipeline.storage.phrasebook import phrasebook_pairs
from model.inspection.text_trace import trace_decoder_only, trace_masked
from trainer.errors import TextError
from transloom.observe.explain.live.packing import packed_filler, packed_generator
from transloom.observe.explain.text.text_explanation import (
    STEPS,
    explain_continuing,
    explain_filling,
)

pytestmark = pytest.mark.long

DRAW = random.Random(7)
WORDS = " ".join(sentence for pair in phrasebook_pairs("test")[:200] for sentence in pair).split()
TEXTS = ["", " ", "a  b\n漢字c ", *(" ".join(DRAW.choices(WORDS, k=4))[:26] for _ in range(12))]
HIDDEN = [
    "[MASK]",
    " [MASK]  ",
    "[MASK][MASK] a",
    "a [MASK], 漢[MASK]b[MASK].",
    *(text.replace("e", "[MASK]", 2) for text in TEXTS if "e" in text),
]
PAIRS = ["a [MASK] ||| b[MASK]", "|||[MASK] c", "[MASK] |||", "[MASK]"]
# Pairwise combinations suffice, because no tensor depends on more than two settings.
DECODERS = covering_cases(
    [
        ("learned", "sinusoidal", "rotary"),
        ("layer", "rms"),
        ("relu", "gelu", "gelu_tanh", "swiglu"),
        (True, False),
        (True, False),
        (4, 2, 1),
    ],
    lambda case: True,
)
NAMES = ("positions", "norm_kind", "activation", "bias", "tie_embeddings", "key_value_heads")
ENCODERS = covering_cases(
    [("post", "pre"), ("relu", "gelu", "gelu_tanh"), (0, 2, 3)], lambda case: True
)
SAMPLINGS = [
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "seed": 3},
    {"temperature": 2.5, "top_k": 3, "top_p": 1.0, "seed": 31},
    {"temperature": 0.9, "top_k": 0, "top_p": 0.5, "seed": 12},
]


def name_of(case):
    return " ".join(map(str, case))


def compare_stack(live, traced):
    compare("stack", live["stack"], traced.stack)


@pytest.mark.parametrize("case", DECODERS, ids=name_of)
def test_the_page_computes_and_continues_like_a_language_model(case, generator_of, tmp_path):
    generator = generator_of(**dict(zip(NAMES, case, strict=True)))
    asked = [("texts", {"texts": TEXTS[2:3]}), ("made", {"texts": TEXTS})]
    asked += [("made", {"texts": TEXTS, "samplings": [sampling]}) for sampling in SAMPLINGS]
    ((live,), greedy, *drawn) = ask(packed_generator(generator), tmp_path, *asked)
    traced = trace_decoder_only(generator.network, live["ids"])
    compare_stack(live, traced)
    compare("logits", live["traced"]["logits_tv"], traced.logits_btv)
    compare("probabilities", live["traced"]["probabilities_tv"], traced.probabilities_btv)
    for text, one in zip(TEXTS, greedy, strict=True):
        explained = explain_continuing(generator, text)
        assert one["ids"] == list(explained.pieces.ids)
        assert one["chosen"] == list(explained.chosen.ids)
        assert one["made"] == explained.continuation
    for sampling, found in zip(SAMPLINGS, drawn, strict=True):
        changed = {**sampling, "max_new_tokens": STEPS}
        generator.sampling = generator.sampling.model_copy(update=changed)
        expected = [generator.generate([text])[0].text for text in TEXTS]
        assert [one["made"] for one in found] == expected


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "learned"])
def test_the_page_treats_a_text_beyond_the_context_like_generate(generator_of, tmp_path, positions):
    generator = generator_of(positions=positions)
    text = "abcdefgh" * 6
    ((found,),) = ask(packed_generator(generator), tmp_path, ("made", {"texts": [text]}))
    if positions == "learned":
        assert "49 pieces, but the page takes 28" in found["refused"]
        return
    changed = {"temperature": 0.0, "max_new_tokens": STEPS}
    generator.sampling = generator.sampling.model_copy(update=changed)
    assert found["made"] == generator.generate([text])[0].text
    assert found["made"] == explain_continuing(generator, text).continuation


@pytest.mark.parametrize("case", ENCODERS, ids=name_of)
def test_the_page_computes_and_fills_in_like_a_masked_model(case, filler_of, tmp_path):
    norm, activation, segments = case
    filler = filler_of(norm=norm, activation=activation, segments=segments)
    filler.pairs = segments > 0
    texts = [*HIDDEN, *(PAIRS if filler.pairs else [])]
    traces, made = ask(
        packed_filler(filler),
        tmp_path,
        ("texts", {"texts": texts[-2:]}),
        ("made", {"texts": texts}),
    )
    for text, live in zip(texts[-2:], traces, strict=True):
        row, places = filler.row(text), live["places"]
        traced = trace_masked(filler.network, row.ids, places, row.segments, row.positions)
        compare_stack(live, traced)
        for name in ("inner_nm", "normed_nm"):
            compare(name, live[name], getattr(traced, name)[None])
        compare("probabilities", live["probabilities_tv"], traced.probabilities_nv[None])
    for text, one in zip(texts, made, strict=True):
        explained = explain_filling(filler, text)
        assert one["ids"] == list(explained.pieces.ids), text
        assert one["made"] == explained.filled, text


def test_the_page_refuses_texts_that_the_masked_model_refuses(filler_of, tmp_path):
    filler = filler_of(preset="bert")
    filler.pairs = True
    texts = ["no mask", "a ||| [MASK] ||| b", "[MASK]" + "a" * 50]
    (found,) = ask(packed_filler(filler), tmp_path, ("made", {"texts": texts}))
    for text, one in zip(texts, found, strict=True):
        with pytest.raises(TextError):
            explain_filling(filler, text)
        assert one["refused"]


def test_the_page_refuses_a_model_whose_weights_are_nan(generator_of, filler_of, tmp_path):
    for model, text in ((generator_of(), "a"), (filler_of(), "[MASK]")):
        with torch.no_grad():
            for weight in model.network.parameters():
                weight.fill_(float("nan"))
        pack = packed_generator if text == "a" else packed_filler
        ((found,),) = ask(pack(model), tmp_path, ("made", {"texts": [text]}))
        assert "NaN" in found["refused"]


def test_a_page_contains_random_numbers_for_the_recipes_seed(generator_of):
    generator = generator_of()
    generator.sampling = generator.sampling.model_copy(update={"seed": 1234})
    draws = packed_generator(generator)["draws"]
    assert len(draws) == 33
    assert all(
        len(numbers) == STEPS and all(0 <= x < 1 for x in numbers) for numbers in draws.values()
    )
