"""The page's results for 1,000 continuations and 1,000 masks equal those of the models."""

import random

import pytest
from support.live_model import ask

from data_pipeline.storage.phrasebook import phrasebook_pairs
from transloom.observe.explain.live.packing import packed_filler, packed_generator
from transloom.observe.explain.text.text_explanation import STEPS

pytestmark = pytest.mark.chaos

DRAW = random.Random(11)
WORDS = " ".join(sentence for pair in phrasebook_pairs("test") for sentence in pair).split()
TEXTS = [" ".join(DRAW.choices(WORDS, k=DRAW.randrange(1, 6)))[:27] for _ in range(500)]


@pytest.mark.parametrize(
    "form", [{"preset": "gpt2"}, {"preset": "llama", "key_value_heads": 2}], ids=str
)
def test_1000_continuations_of_the_page_equal_those_of_generate(generator_of, tmp_path, form):
    generator = generator_of(**form)
    samplings = [
        {"temperature": 0.5 + 0.1 * n, "top_k": n % 4 * 5, "top_p": 1 - 0.1 * (n % 3), "seed": n}
        for n in range(20)
    ]
    asked = ("made", {"texts": TEXTS}), ("made", {"texts": TEXTS, "samplings": samplings})
    greedy, drawn = ask(packed_generator(generator), tmp_path, *asked)
    for n, text in enumerate(TEXTS):
        for found, sampling in ((greedy[n], {"temperature": 0.0}), (drawn[n], samplings[n % 20])):
            changed = {**sampling, "max_new_tokens": STEPS}
            generator.sampling = generator.sampling.model_copy(update=changed)
            assert found["made"] == generator.generate([text])[0].text, (text, sampling)


@pytest.mark.parametrize("form", [{"preset": "bert"}, {"norm": "pre"}], ids=str)
def test_1000_masks_are_filled_by_the_page_like_by_fill(filler_of, tmp_path, form):
    filler = filler_of(**form)
    texts = [text[: len(text) // 2] + "[MASK]" + text[len(text) // 2 + 1 :] for text in TEXTS]
    texts += [text.replace(" ", " [MASK]", 1) for text in TEXTS if " " in text]
    (found,) = ask(packed_filler(filler), tmp_path, ("made", {"texts": texts}))
    assert [one["made"] for one in found] == [one.filled for one in filler.fill(texts)]
