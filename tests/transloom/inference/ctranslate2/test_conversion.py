"""Networks converted to CTranslate2 have the same probabilities and translations."""

import json

import ctranslate2
import pytest
import sentencepiece
import torch
from support.recipes import tiny_recipe

from model.config.transformer import DecodingConfig
from model.errors import ModelError
from model.generation.search import greedy_search
from model.inspection.alignment import translation_weights
from transloom.inference.ctranslate2.conversion import (
    MIN_POSITIONS,
    positions_of,
    require_supported,
    write_model,
)
from transloom.inference.engine_names import ComputeType

POSITIONS = 64
FORMS = [
    {"norm": "post", "share_embeddings": "all"},
    {"norm": "pre", "share_embeddings": "all", "encoder_layers": 1, "decoder_layers": 3},
    {"norm": "post", "share_embeddings": "decoder", "heads": 1},
    {"norm": "pre", "share_embeddings": "decoder", "heads": 8},
    {"norm": "post", "share_embeddings": "none", "encoder_layers": 3, "decoder_layers": 1},
    {"norm": "pre", "share_embeddings": "none"},
    {"share_embeddings": "all", "activation": "silu", "output_bias": True, "decoder_start": "pad"},
    {"share_embeddings": "decoder", "activation": "gelu"},
]
NATS = 2e-5  # largest difference of a token's log-probability, as in docs/decisions/0057
SOURCES = [[5, 9, 7, 30, 12, 8, 21], [4], [17, 11, 11, 6, 40, 13, 9, 22, 5, 31, 18]]


@pytest.fixture(params=FORMS, ids=lambda form: "-".join(map(str, form.values())))
def form(request, tokenizers, joint, network_for):
    """Return a network and its tokenizers, which are equal if all embeddings are shared."""
    chosen = joint if request.param["share_embeddings"] == "all" else tokenizers
    return network_for(chosen, **request.param), chosen


def written(network, tokenizers, folder, **settings):
    write_model(network, tokenizers, POSITIONS, folder, **settings)
    return ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=1)


def pieces(tokenizer, ids):
    return [tokenizer.piece(number) for number in ids]


def test_every_token_has_the_same_probability_in_ctranslate2(form, tmp_path):
    network, tokenizers = form
    translator = written(network, tokenizers, tmp_path)
    bos, eos = network.vocabulary.bos_id, network.vocabulary.eos_id
    target = [6, 20, 9, 33, 14]
    for ids in SOURCES:
        source_bs = torch.tensor([[*ids, eos]])
        with torch.no_grad():
            hidden = network.decode(
                torch.tensor([[bos, *target]]), network.encode(source_bs), source_bs
            )
            all_of_them = network.logits(hidden)[0].log_softmax(dim=1)
        ours = [float(row[token]) for row, token in zip(all_of_them, [*target, eos], strict=True)]
        (found,) = translator.score_batch(
            [pieces(tokenizers["src"], ids)], [pieces(tokenizers["tgt"], target)]
        )
        assert found.log_probs == pytest.approx(ours, rel=0, abs=NATS)


@pytest.mark.matrix
def test_greedy_translations_are_the_same_in_ctranslate2(form, tmp_path):
    network, tokenizers = form
    translator = written(network, tokenizers, tmp_path)
    eos = network.vocabulary.eos_id
    limits = DecodingConfig(max_length_factor=1, max_extra_length=30)
    for ids in SOURCES:
        (ours,) = greedy_search(network, torch.tensor([[*ids, eos]]), limits)
        (found,) = translator.translate_batch(
            [pieces(tokenizers["src"], ids)],
            beam_size=1,
            max_decoding_length=len(ids) + 30,
            min_decoding_length=0,
        )
        assert found.hypotheses[0] == pieces(tokenizers["tgt"], ours.ids)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_ctranslate2_returns_the_attention_of_our_alignments(joint, network_for, tmp_path, layers):
    network = network_for(joint, decoder_layers=layers)
    names = [joint["tgt"].piece(number) for number in range(joint["tgt"].vocabulary_size)]
    translator = written(network, joint, tmp_path)
    for ids in SOURCES:
        (found,) = translator.translate_batch(
            [pieces(joint["src"], ids)],
            beam_size=1,
            max_decoding_length=8,
            min_decoding_length=4,
            return_attention=True,
        )
        target = [names.index(piece) for piece in found.hypotheses[0]]
        source_bs = torch.tensor([[*ids, network.vocabulary.eos_id]])
        (ours,) = translation_weights(network, source_bs, [target])
        theirs = torch.tensor(found.attention[0])
        expected = ours[: len(theirs), : theirs.shape[1]]
        assert len(theirs) >= len(target)
        torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-4)


def test_an_export_needs_only_ctranslate2_and_sentencepiece(tokenizers, network_for, tmp_path):
    network = network_for(tokenizers, share_embeddings="none")
    translator = written(network, tokenizers, tmp_path)
    source, target = (
        sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / f"{side}.model"))
        for side in ("source", "target")
    )
    (found,) = translator.translate_batch(
        [source.encode("je suis là", out_type=str)], beam_size=1, min_decoding_length=0
    )
    ids = [*tokenizers["src"].encode(["je suis là"])[0].tolist(), tokenizers["src"].eos_id]
    (ours,) = greedy_search(network, torch.tensor([ids]), DecodingConfig())
    assert target.decode(found.hypotheses[0]) == tokenizers["tgt"].decode([list(ours.ids)])[0]
    for side, field in (("source", "src"), ("target", "tgt")):  # a translation hardly tests this
        assert (tmp_path / f"{side}.model").read_bytes() == tokenizers[field].model
    vocabulary = json.loads((tmp_path / "source_vocabulary.json").read_text())
    assert len(vocabulary) == tokenizers["src"].vocabulary_size
    assert not (tmp_path / "shared_vocabulary.json").exists()


def test_shared_embeddings_are_stored_once(tokenizers, joint, network_for, tmp_path):
    sizes = {}
    for share in ("all", "none"):
        (tmp_path / share).mkdir()
        network = network_for(joint, share_embeddings=share)
        write_model(network, joint, POSITIONS, tmp_path / share)
        sizes[share] = (tmp_path / share / "model.bin").stat().st_size
        matrix = network.target_embedding.weight.numel() * 4
    assert abs(sizes["none"] - sizes["all"] - 2 * matrix) < 500  # names take some bytes


def test_int8_weights_are_smaller_and_give_similar_scores(joint, network_for, tmp_path):
    network = network_for(joint)
    for name, quantization in (("fp32", None), ("int8", ComputeType.INT8)):
        (tmp_path / name).mkdir()
        write_model(network, joint, POSITIONS, tmp_path / name, quantization)
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("fp32", "int8")]
    assert sizes[1] < 0.6 * sizes[0]
    source, target = (pieces(joint["src"], ids) for ids in (SOURCES[0], SOURCES[2]))
    # Compute in fp32, to compare only the weights. In int8 on a CPU without AVX-512, the scores of
    # this network, whose weights are large, differed by up to 1.6 nats.
    scores = [
        ctranslate2.Translator(str(tmp_path / name), compute_type="float32")
        .score_batch([source], [target])[0]
        .log_probs
        for name in ("fp32", "int8")
    ]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.3)


class OfAnotherKind:
    kind = "bytes"
    name = "bytes.model"


def test_networks_and_tokenizers_of_other_kinds_are_refused(joint, network_for):
    network = network_for(joint)
    with pytest.raises(ModelError, match=r"is a Linear, but .* only transloom's own Transformer"):
        require_supported(torch.nn.Linear(2, 2), joint)
    with pytest.raises(ModelError, match=r"bytes\.model is of the kind bytes"):
        require_supported(network, {**joint, "tgt": OfAnotherKind()})


@pytest.mark.parametrize(
    "settings",
    [
        {"positions": "rotary"},
        {"key_value_heads": 2},
        {"norm_kind": "rms"},
        {"activation": "swiglu"},
    ],
    ids=str,
)
def test_the_error_names_a_setting_newer_than_the_paper(joint, network_for, settings):
    (name,) = settings
    network = network_for(joint)
    network.config = network.config.model_copy(update=settings)
    with pytest.raises(
        ModelError, match=rf"model\.{name} is .*, but the conversion to CTranslate2"
    ):
        require_supported(network, joint)


def test_a_setting_that_the_conversion_does_not_know_is_refused(joint, network_for, monkeypatch):
    network = network_for(joint, norm="pre")
    known = "transloom.inference.ctranslate2.conversion.FIELDS"
    monkeypatch.setattr(known, {"network", "width"})  # as if model.norm were a new setting
    with pytest.raises(ModelError, match=r"model\.\w+ is .*, but the conversion to CTranslate2"):
        require_supported(network, joint)


@pytest.mark.parametrize(
    ("source", "decoding", "expected"),
    [
        (100, {"max_length_factor": 2, "max_extra_length": 50}, MIN_POSITIONS),
        (3000, {"max_length_factor": 0.5, "max_extra_length": 50}, 3000),
        (3000, {"max_length_factor": 1.5, "max_extra_length": 50}, 4550),
    ],
)
def test_an_export_has_positions_for_the_longest_source_and_translation(
    phrasebook, source, decoding, expected
):
    recipe = tiny_recipe(phrasebook).training()
    data = recipe.data.model_copy(update={"max_source_length": source})
    longer = recipe.model_copy(update={"data": data, "decoding": DecodingConfig(**decoding)})
    assert positions_of(longer) == expected
