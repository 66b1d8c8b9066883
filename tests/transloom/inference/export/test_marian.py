"""Exported translation models, read by transformers."""

import json
from itertools import product

import pytest
import torch
from support.recipes import tiny_recipe
from transformers import AutoTokenizer, MarianMTModel

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.tokenizers.tokenizer import train_tokenizer
from model.config.transformer import DecodingConfig, ModelConfig
from model.generation.search import greedy_search
from model.hugging_face.files import write_json, write_model
from model.hugging_face.marian import MAX_POSITIONS, to_marian
from model.networks.transformer import Transformer
from run_store.errors import RunError
from trainer.tasks.translation import vocabulary_of
from transloom.inference.export.hugging_face import generation_config, max_positions, write_marian
from transloom.inference.export.marian_tokenizer import tokenizer_files
from transloom.inference.trained_network import load_network

TEXTS = [
    f"{who} {does} the {kind} {what}{end}"
    for who, does, kind, what, end in product(
        ("a cat", "The dog", "nobody"),
        ("sees", "would like"),
        ("small", "red", "old"),
        ("house", "tree", "café"),
        (".", " – why?"),
    )
]
SYLLABLES = ("ka", "ri", "mo", "tel", "shu", "ban")
TEXTS += [f"{''.join(word)} {''.join(word[::-1])}ing" for word in product(SYLLABLES, repeat=3)]
# Strings on which tokenizers often differ.
NASTY = [
    "",
    " ",
    "  two  spaces ",
    "a\ttab and\nan end",
    "</s>",
    "a</s>b <pad> <unk> <s>",
    "▁ ▁▁",
    "<0x41>",
    "<2de> tree",
    "the <bt> dog",
    "<<>>",
    ">> not a code",
    "İstanbul ﬁne ½",
    "caf\u0065\u0301",
    "漢字🙂 dog",
    "\u200bdog\u00a0tree",
    "a" * 200,
    "“why” — don't…",
]
TAGS = ("<2de>", ">>bt<<")
LANGUAGES = {SOURCE: "en", TARGET: "de"}
# Tokenizer type, byte fallback, joint tokenizer, shared embeddings, tags.
VARIANTS = [
    ("bpe", False, True, "all", ()),
    ("bpe", True, True, "decoder", ("<2de>",)),
    ("unigram", False, True, "none", ("<2de>", "<bt>")),
    ("unigram", True, True, "all", ("<2de>",)),
    ("bpe", False, False, "decoder", ("<bt>",)),
    ("unigram", True, False, "none", ()),
]
DECODING = DecodingConfig(max_extra_length=6)


def tokenizers_of(kind, byte_fallback, joint, tags=()):
    size = 330 if byte_fallback else 74
    config = TokenizerConfig(
        type=kind, vocabulary_size=size, byte_fallback=byte_fallback, joint=joint
    )
    source = train_tokenizer(TEXTS, config, "source", tags)
    if joint:
        return {SOURCE: source, TARGET: source}
    smaller = config.model_copy(update={"vocabulary_size": size - 4})
    return {SOURCE: source, TARGET: train_tokenizer(TEXTS[::2], smaller, "target")}


def network_of(tokenizers, share):
    settings = {"encoder_layers": 2, "decoder_layers": 2, "width": 32, "heads": 4, "dropout": 0.0}
    config = ModelConfig(**settings, feed_forward_width=48, share_embeddings=share)
    torch.manual_seed(2)
    return Transformer(config, vocabulary_of(tokenizers, config)).eval()


def ours_of(tokenizer, text, tag=None):
    return tokenizer.encode_field([text], tag).ids.tolist()


@pytest.mark.matrix
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v[:4])))
def test_transformers_gives_the_same_ids_logits_and_translations(variant, tmp_path):
    kind, byte_fallback, joint, share, tags = variant
    tokenizers = tokenizers_of(kind, byte_fallback, joint, tags)
    network = network_of(tokenizers, share)
    write_model(tmp_path, to_marian(network))
    write_json(tmp_path / "generation_config.json", generation_config(network, DECODING, 512))
    files = tokenizer_files(tokenizers, tags=tags, languages=LANGUAGES, max_length=512)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    theirs = MarianMTModel.from_pretrained(tmp_path).eval()

    for text in [*TEXTS[::5], *NASTY]:
        assert tokenizer(text)["input_ids"] == ours_of(tokenizers[SOURCE], text), text
        target = tokenizer(text_target=text)["input_ids"]
        assert target == ours_of(tokenizers[TARGET], text), text
        shown = tokenizer.decode(target, skip_special_tokens=True)
        if tokenizers[TARGET].unk_id not in target:
            assert shown == tokenizers[TARGET].decode([target])[0].strip()
        for tag in tags:
            tagged = tokenizer(f">>{tag}<< {text}")["input_ids"]
            assert tagged == ours_of(tokenizers[SOURCE], text, tag), (tag, text)

    for text in TEXTS[::60]:
        source = torch.tensor([ours_of(tokenizers[SOURCE], text)])
        (mine,) = greedy_search(network, source, DECODING)
        made = theirs.generate(source, num_beams=1, max_new_tokens=source.shape[1] + 6)
        assert [*mine.ids, network.vocabulary.eos_id] == made[0, 1:].tolist()
        target_input = torch.tensor([[network.vocabulary.bos_id, *mine.ids]])
        with torch.no_grad():
            found = network.logits(network.decode(target_input, network.encode(source), source))
            expected = theirs(input_ids=source, decoder_input_ids=target_input).logits
        largest = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * largest)


def test_generation_config_has_the_search_settings_of_the_recipe():
    decoding = DecodingConfig(beam_size=3, length_penalty=0.4)
    network = network_of(tokenizers_of("bpe", False, True), "all")
    found = generation_config(network, decoding, 77)
    expected = {"num_beams": 3, "length_penalty": 0.4, "max_length": 77}
    assert found.items() >= expected.items()


@pytest.mark.parametrize("start", ["bos", "pad"])
def test_generation_config_has_the_special_tokens_of_the_network(start):
    tokenizers = tokenizers_of("bpe", False, True)
    target = tokenizers[TARGET]
    config = ModelConfig(encoder_layers=1, decoder_layers=1, width=8, heads=2, decoder_start=start)
    network = Transformer(config, vocabulary_of(tokenizers, config))
    found = generation_config(network, DECODING, 77)
    starts_with = {"bos": target.bos_id, "pad": target.pad_id}[start]
    assert found["decoder_start_token_id"] == starts_with
    assert found["bos_token_id"] == {"bos": target.bos_id, "pad": None}[start]
    assert found["eos_token_id"] == found["forced_eos_token_id"] == target.eos_id
    assert found["pad_token_id"] == target.pad_id
    # The search never writes padding or the start token, and stops when the beam is complete.
    assert found["suppress_tokens"] == sorted({target.pad_id, starts_with})
    assert found["early_stopping"]


@pytest.mark.parametrize(
    ("source", "decoding", "expected"),
    [
        (100, {"max_length_factor": 2, "max_extra_length": 50}, MAX_POSITIONS),
        (1000, {"max_length_factor": 0.5, "max_extra_length": 50}, 1000),
        (1000, {"max_length_factor": 1.5, "max_extra_length": 50}, 1551),  # 1,550 tokens and BOS
    ],
)
def test_an_export_has_positions_for_the_longest_source_and_translation(
    phrasebook, source, decoding, expected
):
    data = tiny_recipe(phrasebook).data.model_copy(update={"max_source_length": source})
    assert max_positions(data, DecodingConfig(**decoding)) == expected


def test_only_tags_not_in_marians_form_are_renamed():
    tokenizers = tokenizers_of("bpe", False, True, TAGS)
    files = tokenizer_files(tokenizers, tags=TAGS, languages=LANGUAGES, max_length=512)
    pieces = json.loads(files["vocab.json"])
    assert pieces[">>bt<<"] == tokenizers[SOURCE].tag_id(">>bt<<")
    assert pieces[">><2de><<"] == tokenizers[SOURCE].tag_id("<2de>")
    assert "<2de>" not in pieces


def test_the_error_names_an_unsupported_tokenizer():
    config = TokenizerConfig(type="bpe", vocabulary_size=90, verbatim=True)
    tokenizer = train_tokenizer(TEXTS, config, "words.model")
    with pytest.raises(RunError, match=r"words\.model was trained with tokenizer\.verbatim"):
        tokenizer_files(
            {SOURCE: tokenizer, TARGET: tokenizer}, tags=(), languages=LANGUAGES, max_length=512
        )


def test_the_tokenizer_config_names_the_languages_of_the_run(untrained_run, tmp_path):
    trained = load_network(untrained_run.path, 1, "cpu", "fp32")
    write_marian(trained, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    data = trained.recipe.data
    assert data.source_language != data.target_language
    assert (config["source_lang"], config["target_lang"]) == (
        data.source_language,
        data.target_language,
    )
    assert (tmp_path / "source.spm").read_bytes()
