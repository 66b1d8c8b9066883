"""forward.js and search.js compared with the model: all tensors and translations."""

import itertools
import random

import pytest
import torch
from support.covering import covering_cases
from support.live_model import ask, close, compare

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from model.config.transformer import DecodingConfig, ModelConfig
from model.generation.search import beam_search, greedy_search
from model.inspection.trace import trace
from model.networks.transformer import Transformer, Vocabulary
from transloom.inference.translator import Translator
from transloom.observe.explain.live.packing import NotLiveError, packed

pytestmark = pytest.mark.long

PAIRS = phrasebook_pairs("train")[:600]
DECODING = DecodingConfig(beam_size=3, max_length_factor=0.5, max_extra_length=6)


def tokenizer(side, **settings):
    texts = [pair[side] for pair in PAIRS] if side is not None else list(itertools.chain(*PAIRS))
    config = TokenizerConfig(**{"type": "bpe", "vocabulary_size": 300, **settings})
    return SentencePieceTokenizer.train(texts, config, "a model", ["<2en>"])


TOKENIZERS = {
    "bpe": lambda: tokenizer(None),
    "unigram": lambda: tokenizer(None, type="unigram"),
    "bytes": lambda: tokenizer(None, byte_fallback=True, vocabulary_size=500),
}


def translator(kind="bpe", two=False, seed=0, checkpoint=None, decoding=DECODING, **settings):
    """Return a translator with random nonzero weights and tokenizers of the phrase book."""
    source, target = (tokenizer(0), tokenizer(1)) if two else (TOKENIZERS[kind](),) * 2
    small = {"encoder_layers": 2, "decoder_layers": 2, "width": 32, "heads": 4}
    config = ModelConfig(**{**small, "feed_forward_width": 48, **settings})
    torch.manual_seed(seed)
    special = target.special_ids
    sizes = source.vocabulary_size, target.vocabulary_size
    bos = special.pad if config.decoder_start == "pad" else special.bos
    model = Transformer(config, Vocabulary(*sizes, special.pad, bos, special.eos))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)  # also changes biases and norms
    return Translator(model, {SOURCE: source, TARGET: target}, decoding, checkpoint)


MARIAN = {"activation": "silu", "output_bias": True, "decoder_start": "pad"}
# Settings newer than the Transformer paper, separately and together.
NEWER = {
    "rotary": {"positions": "rotary", "rotary_base": 500.0},
    "rms": {"norm_kind": "rms"},
    "swiglu": {"activation": "swiglu"},
    "groups": {"key_value_heads": 2},
    "as T5's and Llama's": {
        **{"positions": "rotary", "norm_kind": "rms", "activation": "swiglu"},
        **{"key_value_heads": 1, "norm": "pre", "share_embeddings": "decoder"},
    },
}
FORMS = {
    "post": {},
    "pre": {"norm": "pre"},
    "gelu": {"activation": "gelu"},
    "Marian": MARIAN,
} | NEWER
# Pairwise combinations suffice, because no tensor depends on more than two settings.
VARIANTS = {
    f"{norm}, {share}, {kind}": {"norm": norm, "share_embeddings": share, "kind": kind}
    for norm, share, kind in covering_cases(
        [("post", "pre"), ("all", "decoder", "none"), tuple(TOKENIZERS)], lambda case: True
    )
} | {
    "two vocabularies": {"two": True, "share_embeddings": "decoder", "norm": "pre"},
    "gelu": {"activation": "gelu"},
    "as Marian's networks": MARIAN,
    "one head, unlike stacks": {"heads": 1, "encoder_layers": 1, "decoder_layers": 3},
    **NEWER,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_of_the_page_equals_the_trace(variant, tmp_path):
    made = translator(**VARIANTS[variant])
    tag = "<2en>"
    source = made.source_ids("elle sera étudiante œ demain", tag)
    assert source[0] == made.tokenizers[0].tag_id(tag)
    target = [made.model.vocabulary.bos_id, *made.tokenizers[-1].encode(["she will be a 9"])[0]]
    target = [int(number) for number in target]
    (live,) = ask(packed(made), tmp_path, ("trace", {"source": source, "target": target}))
    traced = trace(made.model, torch.tensor([source]), torch.tensor([target]))
    compare("trace", live, traced)
    found = torch.tensor([float(x) for x in live["logits_tv"]["data"]]).view(len(target), -1)
    assert torch.equal(found.argmax(1), traced.logits_btv[0].argmax(1))


@pytest.mark.parametrize("form", ["post", "pre", "Marian", *NEWER])
def test_the_page_finds_the_same_hypotheses_with_untrained_networks(form, tmp_path):
    """Untrained networks have similar probabilities and often reach the length limit."""
    made = translator(**{"share_embeddings": "none", **FORMS[form]})
    sentences = [pair[0] for pair in PAIRS[:40]]
    sources = [made.source_ids(sentence) for sentence in [*sentences, ""]]
    greedy, beam = ask(
        packed(made), tmp_path, ("greedy", {"sources": sources}), ("beam", {"sources": sources})
    )
    for ids, one, several in zip(sources, greedy, beam, strict=True):
        source = torch.tensor([ids])
        (best,) = greedy_search(made.model, source, made.decoding)
        assert one["ids"] == list(best.ids)
        assert one["score"] == pytest.approx(best.score, rel=1e-5)
        (found,) = beam_search(made.model, source, made.decoding)
        assert [hypothesis["ids"] for hypothesis in several] == [list(h.ids) for h in found]
        assert [h["score"] for h in several] == pytest.approx([h.score for h in found], rel=1e-5)


def test_the_page_translates_like_a_trained_network(one_rank, tmp_path):
    """Compares 1,000 greedy and 200 beam translations of real and random sentences."""
    made = Translator.load(one_rank.folder / "one-rank")
    draw = random.Random(3)
    plain = [pair[0] for pair in phrasebook_pairs("test")[:500]]
    words = " ".join(plain).split()
    mixed = [" ".join(draw.choices(words, k=draw.randrange(1, 9))) for _ in range(500)]
    sentences = [*plain, *mixed]
    sources = [made.source_ids(sentence) for sentence in sentences]
    some = range(0, len(sentences), 5)
    greedy, beam, texts = ask(
        packed(made),
        tmp_path,
        ("greedy", {"sources": sources}),
        ("beam", {"sources": [sources[n] for n in some]}),
        ("encode", {"side": "source", "texts": sentences}),
    )
    for ids, pieces in zip(sources, texts, strict=True):
        assert [*(piece["id"] for piece in pieces), made.model.vocabulary.eos_id] == ids
    translated = made.translate_n_best([sentences[n] for n in some])
    for live, found in zip(beam, translated, strict=True):
        assert [tuple(h["ids"]) for h in live] == [one.ids for one in found]
        assert [h["score"] for h in live] == pytest.approx([h.score for h in found], rel=1e-5)
    made.decoding = made.decoding.model_copy(update={"beam_size": 1})
    found = made.translate_n_best(sentences)
    assert [tuple(h["ids"]) for h in greedy] == [one[0].ids for one in found]


def test_a_switch_changes_its_part_and_no_earlier_tensor(tmp_path):
    made = translator(encoder_layers=2)
    source, target = made.source_ids("je suis étudiant"), [2, 40, 50, 60]
    question = {"source": source, "target": target}

    def asked(**switches):
        return "trace", {**question, "switches": switches}

    plain, head, around, places, undivided, seeing = ask(
        packed(made),
        tmp_path,
        asked(),
        asked(headsOff=["encoder.1.self_attention.2"]),
        asked(residualsOff=["decoder.0.cross_attention"]),
        asked(positions=False),
        asked(scaledScores=False),
        asked(mask=False),
    )

    def of(tensor):
        return torch.tensor([float(x) for x in tensor["data"]]).view(tensor["shape"])

    mix = of(head["encoder"]["layers"][1]["self_attention"]["mix_htd"])
    kept = of(plain["encoder"]["layers"][1]["self_attention"]["mix_htd"])
    assert not mix[2].any()
    assert torch.equal(mix[[0, 1, 3]], kept[[0, 1, 3]])
    assert head["encoder"]["layers"][0] == plain["encoder"]["layers"][0]
    assert head["logits_tv"] != plain["logits_tv"]
    crossed = around["decoder"]["layers"][0]
    assert crossed["cross_attention_residual"]["sum_tm"] == crossed["cross_attention"]["output_tm"]
    assert around["encoder"] == plain["encoder"]
    embedding = places["encoder"]["embedding"]
    assert embedding["sum_tm"] == embedding["scaled_tm"]
    scores = [
        of(one["encoder"]["layers"][0]["self_attention"]["scores_hts"])
        for one in (undivided, plain)
    ]
    torch.testing.assert_close(scores[0], scores[1] * 8**0.5)
    weights = of(seeing["decoder"]["layers"][0]["self_attention"]["weights_hts"])
    assert (weights > 0).all()


@pytest.mark.parametrize("form", ["post", "pre", *NEWER])
def test_every_switch_changes_a_probability(form, tmp_path):
    """The page shows the probability that changes most between on and off."""
    made = translator(**FORMS[form])
    sentence = "elle sera étudiante demain"
    (effects,) = ask(packed(made), tmp_path, ("effects", {"sentence": sentence}))
    assert len(effects) == 3 + 2 * (4 + 2) + 2 * (8 + 3)  # flags, then heads and residuals by layer
    assert len({(one["name"], one["value"]) for one in effects}) == len(effects)
    assert all(one["isSwitched"] and one["after"] != one["before"] for one in effects)
    assert sum(abs(one["after"] - one["before"]) > 1e-4 for one in effects) > len(effects) / 2
    question = {name: effects[0][name] for name in ("source", "target")}
    off = [{one["name"]: False if one["value"] is None else [one["value"]]} for one in effects]
    plain, *switched = ask(
        packed(made), tmp_path, *[("trace", {**question, "switches": s}) for s in [{}, *off[::6]]]
    )

    def probabilities(traced):
        return torch.tensor([float(x) for x in traced["probabilities_tv"]["data"]])

    for one, traced in zip(effects[::6], switched, strict=True):
        before, after = probabilities(plain), probabilities(traced)
        most = int((after - before).abs().argmax())
        assert divmod(most, len(before) // len(question["target"])) == (one["t"], one["id"])
        assert (one["before"], one["after"]) == (float(before[most]), float(after[most]))


def test_packing_refuses_a_model_with_too_many_weights(monkeypatch):
    monkeypatch.setattr("transloom.observe.explain.live.packing.MOST_WEIGHTS", 1000)
    with pytest.raises(NotLiveError, match=r"has [\d,]+ weights, more than 1,000"):
        packed(translator())


CHANGED = {
    "headsOff": ["decoder.1.cross_attention.1"],
    "residualsOff": ["encoder.0.feed_forward"],
    **{"positions": False, "scaledScores": False, "mask": False},
}


@pytest.mark.parametrize("switches", [{}, CHANGED], ids=["as trained", "switched"])
@pytest.mark.parametrize("form", FORMS)
def test_the_terms_of_each_origin_yield_its_number(form, switches, tmp_path):
    """The terms yield the number up to 1e-5, and equal the numbers that they refer to."""
    made = translator(**{"share_embeddings": "none", **FORMS[form]})
    source, target = [*range(60, 79), made.model.vocabulary.eos_id], [2, *range(40, 59)]
    stride = 5 if switches else 1
    asked = {"source": source, "target": target, "switches": switches, "stride": stride}
    (found,) = ask(packed(made), tmp_path, ("origins", asked))
    assert found["faults"] == []
    assert found["count"] > 40_000 / stride


@pytest.mark.parametrize("form", ["post", "pre", "Marian", "as T5's and Llama's"])
@torch.no_grad()
def test_the_lens_applies_the_output_layer_to_each_layers_rows(form, tmp_path):
    made = translator(**{"share_embeddings": "none", **FORMS[form]})
    source, target = made.source_ids("je suis étudiant"), [2, 40, 50, 60]
    (lens,) = ask(packed(made), tmp_path, ("lens", {"source": source, "target": target}))
    model, traced = made.model, trace(made.model, torch.tensor([source]), torch.tensor([target]))
    layers = [layer.feed_forward_residual.output_btm for layer in traced.decoder.layers]
    last_norm = model.decoder.last_norm if made.model.config.norm == "pre" else torch.nn.Identity()
    assert [one["name"] for one in lens] == ["embedding", "layer 1", "layer 2"]
    for one, row in zip(lens, [traced.decoder.embedding.sum_btm, *layers], strict=True):
        expected = model.logits(last_norm(row))[0].softmax(1)
        close(one["name"], one["probabilities_tv"], expected)
    close("the last", lens[-1]["probabilities_tv"], traced.probabilities_btv[0])


@pytest.mark.parametrize("form", ["post", "pre", "groups"])
@torch.no_grad()
def test_vector_lengths_and_occlusion_drops_equal_those_of_the_model(form, tmp_path):
    made = translator(**FORMS[form])
    question = {"sentence": "je suis étudiant"}
    off = {"headsOff": ["decoder.1.cross_attention.2"]}
    found, without = ask(
        packed(made), tmp_path, ("heads", question), ("heads", {**question, "switches": off})
    )
    model, ids, chosen = made.model, found["ids"], torch.tensor(found["chosen"])
    read = torch.tensor([[model.vocabulary.bos_id, *found["chosen"][:-1]]])
    traced = trace(model, torch.tensor([ids]), read)

    def log_probabilities(source):
        return trace(model, torch.tensor([source]), read).probabilities_btv[0].log()

    def of_chosen(source):
        return log_probabilities(source).gather(1, chosen[:, None])[:, 0]

    unknown = made.tokenizers[0].unk_id
    drops = [
        of_chosen(ids) - of_chosen([*ids[:s], unknown, *ids[s + 1 :]]) for s in range(len(ids) - 1)
    ]
    close("drops", found["drops"], torch.stack(drops, dim=1))
    crossed = [layer.cross_attention.weights_bhts[0] for layer in traced.decoder.layers]
    close("mean", found["mean"], torch.cat(crossed).mean(0))
    assert len(found["lengths"]) == 2 + 2 * 2
    for one in found["lengths"]:
        stack, _, n, part = one["key"].split(".")
        attention = getattr(getattr(traced, stack).layers[int(n)], part)
        matrix = getattr(getattr(model, stack).layers[int(n)], part).output.weight  # (m, h · d)
        brought = torch.einsum(
            "hsd,mhd->hsm", attention.values_bhsd[0], matrix.unflatten(1, (4, -1))
        )
        close(one["key"], one["lengths"], attention.weights_bhts[0] * brought.norm(dim=2)[:, None])
    changed = without["lengths"][-1]
    assert changed["key"] == "decoder.layers.1.cross_attention"
    lengths = torch.tensor([float(x) for x in changed["lengths"]["data"]])
    assert [bool(head.any()) for head in lengths.view(4, -1)] == [True, True, False, True]


def test_the_page_shows_pieces_unknown_characters_and_candidates(tmp_path):
    made = translator("bpe")
    sentence = "je  suis ÉTUDIANT 日本"
    (found,) = ask(packed(made), tmp_path, ("compute", {"sentence": sentence, "tag": "<2en>"}))
    assert found["ids"] == made.source_ids(sentence, "<2en>")
    assert found["source"] == made.source_pieces(found["ids"])
    assert "".join(one["text"] for one in found["stands"]).replace(" ", "") == "jesuisÉTUDIANT日本"
    unknown = [one["text"] for one in found["stands"] if one["note"] == "unknown to the model"]
    assert "日本" in unknown
    translated = made.target_text(found["chosen"])
    assert found["translation"] == translated
    for chosen, best in zip(found["chosen"][:-1], found["best"], strict=False):
        allowed = [one["id"] for one in best if one["id"] not in (0, 2)]
        assert chosen == allowed[0]
        assert best[0]["probability"] >= best[1]["probability"]
