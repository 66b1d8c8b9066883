"""The network in Marian's layout, compared with the transformers class that reads it."""

import json

import pytest
import torch
from support.large_weights import make_weights_large
from support.marian import write_model
from transformers import MarianConfig, MarianMTModel
from transformers.trainer_pt_utils import LabelSmoother

from model.config.transformer import AttentionBackend, DecodingConfig, ModelConfig
from model.errors import ModelError
from model.generation.search import greedy_search
from model.hugging_face.files import read_model
from model.hugging_face.files import write_model as write_ours
from model.hugging_face.marian import BIAS, HEAD, SHARED, SOURCE, TARGET, from_marian, to_marian
from model.inspection.trace import trace
from model.losses.loss import CrossEntropy
from model.networks.transformer import Transformer, Vocabulary

PIECES = 30
NO_TARGET = -100
PAD, BOS, EOS = 0, 2, 3
SHARING = ["all", "decoder", "none"]
# Settings of the paper's network and of Marian's.
FORMS = {
    "paper": {},
    "marian": {"activation": "silu", "output_bias": True, "decoder_start": "pad"},
}
# Settings by Marian's names, of a size that computes quickly.
SIZES = {
    "d_model": 32,
    "max_position_embeddings": 64,
    **{f"{side}_layers": layers for side, layers in (("encoder", 3), ("decoder", 2))},
    **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
}


def network_of(seed=0, pieces=PIECES, backend=None, **settings):
    """Return one of our networks, with vectors that are neither 0 nor 1."""
    small = {"encoder_layers": 3, "decoder_layers": 2, "width": 32, "heads": 4, "dropout": 0.0}
    config = ModelConfig(**small, feed_forward_width=48, **settings)
    torch.manual_seed(seed)
    start = PAD if config.decoder_start == "pad" else BOS
    target = pieces if config.share_embeddings == "all" else pieces + 8
    network = Transformer(config, Vocabulary(pieces, target, PAD, start, EOS), backend)
    return make_weights_large(network, 1)


def marian_of(ours):
    """Return the class that reads the layout, filled as by `from_pretrained`."""
    config, weights = to_marian(ours, max_positions=64)
    marian = MarianMTModel(MarianConfig(**config, attn_implementation="eager"))
    found = marian.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    marian.tie_weights()
    return marian.train(ours.training)


def config_of(marian):
    return json.loads(marian.config.to_json_string(use_diff=False))


def input_of(target, start):
    return torch.cat([torch.full((len(target), 1), start), target[:, :-1]], dim=1)


def own_ids(row):
    """Return the tokens of a row of `generate`, without the start token, up to EOS."""
    row = row[1:]
    return tuple(row[: row.index(EOS)] if EOS in row else row)


@pytest.mark.matrix
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("form", FORMS)
def test_logits_loss_and_gradients_equal_those_of_marian(sentences, form, share, smoothing):
    ours = network_of(share_embeddings=share, **FORMS[form])
    marian = marian_of(ours)
    source, target = sentences([9, 4, 17]), sentences([6, 23, 3], seed=2)
    real = target != PAD
    labels = target.masked_fill(~real, NO_TARGET)

    expected = marian(input_ids=source, attention_mask=source != PAD, labels=labels)
    target_input = input_of(target, ours.vocabulary.bos_id)
    hidden = ours.decode(target_input, ours.encode(source), source)
    torch.testing.assert_close(ours.logits(hidden)[real], expected.logits[real], rtol=0, atol=1e-5)

    loss = ours(source, target_input, target, CrossEntropy(smoothing)).smoothed / real.sum()
    expected_loss = (
        LabelSmoother(smoothing, NO_TARGET)(expected, labels) if smoothing else expected.loss
    )
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)

    by_logits = torch.autograd.grad(expected_loss, expected.logits, retain_graph=True)[0]
    loss.backward()
    expected_loss.backward()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.grad)
    gradients = to_marian(ours).weights
    learned = {name: p.grad for name, p in marian.named_parameters() if p.requires_grad}
    if ours.config.output_bias:  # Marian's class does not train this bias
        learned[BIAS] = by_logits.sum((0, 1))[None]
    else:
        assert not gradients.pop(BIAS).any()
    assert gradients.keys() == learned.keys()
    if ours.vocabulary.starts_with_padding:  # Marian's class does not train this vector
        for found in (gradients, learned):
            found[SHARED if share == "all" else TARGET][PAD] = 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, learned[name], rtol=0, atol=1e-5, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("form", FORMS)
def test_greedy_translations_equal_those_of_marian(sentences, form, share):
    ours = network_of(seed=7, share_embeddings=share, **FORMS[form]).eval()
    source, vocabulary = sentences([9] * 4, seed=5), ours.vocabulary
    greedy = marian_of(ours).generate(
        source,
        attention_mask=source != PAD,
        suppress_tokens=sorted({vocabulary.pad_id, vocabulary.bos_id}),
        forced_eos_token_id=EOS,
        max_new_tokens=9 + 6,
        num_beams=1,
        do_sample=False,
    )
    found = greedy_search(ours, source, DecodingConfig(max_extra_length=6))
    assert [hypothesis.ids for hypothesis in found] == [own_ids(row) for row in greedy.tolist()]
    assert all(len(hypothesis.ids) > 1 for hypothesis in found)


@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("form", FORMS)
def test_a_network_is_equal_after_export_and_import(form, share):
    ours = network_of(share_embeddings=share, **FORMS[form])
    ours.config = ours.config.model_copy(update={"dropout": 0.2, "attention_dropout": 0.3})
    marian = marian_of(ours)
    assert (marian.config.dropout, marian.config.attention_dropout) == (0.2, 0.3)
    back = from_marian(config_of(marian), marian.state_dict())
    assert back.config == ours.config
    assert back.vocabulary == ours.vocabulary
    assert back.state_dict().keys() == ours.state_dict().keys()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name


@pytest.mark.matrix
@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("activation", ["swish", "relu", "gelu"])
def test_networks_of_marians_class_are_imported_with_the_same_results(sentences, share, activation):
    """The special tokens are those of published models: padding is last, and there is no BOS."""
    settings = MarianConfig(
        **SIZES,
        vocab_size=PIECES,
        decoder_vocab_size=PIECES if share == "all" else PIECES + 5,
        activation_function=activation,
        scale_embedding=True,
        share_encoder_decoder_embeddings=share == "all",
        tie_word_embeddings=share != "none",
        pad_token_id=PIECES - 1,
        bos_token_id=0,
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=PIECES - 1,
        attn_implementation="eager",
    )
    torch.manual_seed(4)
    marian = MarianMTModel(settings).eval()
    with torch.no_grad():
        for tensor in [*marian.parameters(), marian.final_logits_bias]:
            if tensor.requires_grad or tensor is marian.final_logits_bias:
                tensor.add_(0.2 * torch.randn_like(tensor))
    ours = from_marian(config_of(marian), marian.state_dict()).eval()
    assert ours.config.output_bias
    assert ours.config.decoder_start == "pad"

    source = torch.randint(1, PIECES - 1, (3, 9), generator=torch.Generator().manual_seed(1))
    source[:, -1] = 0
    source[1, 4:] = torch.tensor([0, *[PIECES - 1] * 4])
    target_input = torch.cat([torch.full((3, 1), PIECES - 1), source[:, :5]], dim=1)
    mask = source != PIECES - 1
    with torch.no_grad():
        found = ours.logits(ours.decode(target_input, ours.encode(source), source))
        expected = marian(
            input_ids=source, attention_mask=mask, decoder_input_ids=target_input
        ).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    greedy = marian.generate(
        source[:1], num_beams=1, max_new_tokens=15, bad_words_ids=[[PIECES - 1]], do_sample=False
    )
    (own,) = greedy_search(ours, source[:1], DecodingConfig(max_extra_length=6))
    theirs = greedy[0, 1:].tolist()
    assert list(own.ids) == theirs[: theirs.index(0)]


@pytest.mark.lab
@torch.no_grad()
def test_a_model_of_the_size_of_opus_mt_is_imported_and_exported(tmp_path):
    """Like opus-mt-en-de, it has 6 + 6 layers of width 512 and 58,101 pieces: 74 M weights."""
    size = {f"{side}_layers": 6 for side in ("encoder", "decoder")}
    size |= {f"{side}_ffn_dim": 2048 for side in ("encoder", "decoder")}
    size |= {f"{side}_attention_heads": 8 for side in ("encoder", "decoder")}
    marian = write_model(tmp_path / "given", 58_101, d_model=512, **size)
    ours = from_marian(*read_model(tmp_path / "given")).eval()
    write_ours(tmp_path / "back", to_marian(ours))
    back = MarianMTModel.from_pretrained(tmp_path / "back").eval()

    source = torch.randint(1, 58_000, (4, 30), generator=torch.Generator().manual_seed(1))
    source[:, -1] = 0
    pad = marian.config.pad_token_id
    target = torch.cat([torch.full((4, 1), pad), source[:, :20]], dim=1)
    found = ours.logits(ours.decode(target, ours.encode(source), source))
    for theirs in (marian, back):
        expected = theirs(input_ids=source, decoder_input_ids=target).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    greedy = marian.generate(
        source, num_beams=1, max_new_tokens=30, bad_words_ids=[[pad]], do_sample=False
    )
    limit = DecodingConfig(max_length_factor=0.9, max_extra_length=1)
    for hypothesis, row in zip(greedy_search(ours, source, limit), greedy.tolist(), strict=True):
        assert len(hypothesis.ids) > 10
        assert list(hypothesis.ids) == row[1 : 1 + len(hypothesis.ids)]


def test_packed_sentences_give_the_same_loss_and_gradients(sentences):
    given = FORMS["marian"]
    padded = network_of(backend=AttentionBackend.MATMUL, **given)
    packed = network_of(backend=AttentionBackend.VARLEN, **given)
    source, target = sentences([9, 4, 17]), sentences([6, 23, 3], seed=2)
    sums = [
        network(source, input_of(target, PAD), target, CrossEntropy(0.1)).smoothed
        for network in (padded, packed)
    ]
    torch.testing.assert_close(*sums, rtol=1e-6, atol=0)
    for found in sums:
        found.backward()
    for name, parameter in padded.named_parameters():
        gradient = packed.get_parameter(name).grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-4)


def test_a_trace_includes_the_output_bias_and_the_activation(sentences):
    ours = network_of(**FORMS["marian"]).eval()
    source, target_input = sentences([9]), input_of(sentences([6], seed=2), PAD)
    traced = trace(ours, source, target_input)
    with torch.no_grad():
        hidden = ours.decode(target_input, ours.encode(source), source)
        expected = hidden @ ours.output_weight.T + ours.output_bias
    torch.testing.assert_close(traced.logits_btv, expected, rtol=0, atol=1e-5)
    inner = traced.encoder.layers[0].feed_forward.inner_btf
    assert -0.3 < inner.min() < 0  # the minimum of SiLU is -0.278


def test_a_pre_norm_network_is_not_exported_and_the_setting_is_reported():
    with pytest.raises(ModelError, match=r"model\.norm is pre, .*norm=post"):
        to_marian(network_of(norm="pre"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": "rotary"}, r"model\.positions is rotary, .* have sinusoidal\."),
        ({"key_value_heads": 1}, r"model\.key_value_heads is 1, .* have 4\."),
        ({"norm_kind": "rms"}, r"model\.norm_kind is rms, .* have layer\."),
        ({"norm_epsilon": 1e-6}, r"model\.norm_epsilon is 1e-06, .* have 1e-05\."),
        ({"activation": "swiglu"}, r"model\.activation is swiglu, .* relu or gelu or silu\."),
    ],
)
def test_settings_that_marian_lacks_are_refused_by_name(settings, message):
    with pytest.raises(ModelError, match=message):
        to_marian(network_of(**settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bart"}, "model_type of the config is 'bart'.*'marian'"),
        ({"scale_embedding": False}, "scale_embedding of the config is False"),
        ({"activation_function": "tanh"}, "activation_function of the config is 'tanh'.*'swish'"),
        ({"decoder_ffn_dim": 8}, "decoder_ffn_dim of the config is 8, .*must be 48"),
        ({"decoder_attention_heads": 2}, "decoder_attention_heads of the config is 2"),
        ({"normalize_before": True}, "normalize_before of the config is True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings of the config is False"),
        ({"eos_token_id": [3, 4]}, r"eos_token_id of the config is \[3, 4\].*one token"),
        ({"decoder_start_token_id": 3}, "EOS must differ from padding and BOS"),
        ({"pad_token_id": None}, "pad_token_id of the config is None"),
        ({"d_model": 33, "encoder_attention_heads": 3}, "33"),
        ({"d_model": "wide"}, "d_model of the config is 'wide'"),
        ({"d_model": 10**6}, r"shared\.weight has the shape \(30, 32\).*vectors of 1000000"),
        ({"vocab_size": 10**25}, r"vocab_size of the config is 1000000.*from 1 to 2,147,483,647"),
        ({"vocab_size": 31}, r"shared\.weight has the shape \(30, 32\).*\(31, 32\)"),
        ({"encoder_layers": 4}, r"weight model\.encoder\.layers\.3"),
        ({"encoder_layers": 2}, r"belong to Marian: 16, such as model\.encoder\.layers\.2"),
        ({"quantization_config": {}}, "quantization_config"),
    ],
)
def test_a_config_that_marian_or_the_weights_contradict_is_refused_by_name(changes, message):
    config, weights = to_marian(network_of())
    changed = config | changes
    if "encoder_attention_heads" in changes:
        changed["decoder_attention_heads"] = changes["encoder_attention_heads"]
    with pytest.raises(ModelError, match=message):
        from_marian(changed, weights)


def test_keys_missing_in_a_config_have_marians_defaults():
    config, weights = to_marian(network_of())
    del config["scale_embedding"]
    with pytest.raises(ModelError):
        from_marian(config, weights)


def test_a_shared_matrix_is_read_under_any_of_its_names():
    ours = network_of()
    config, weights = to_marian(ours)
    matrix = weights.pop(SHARED)
    for names in ([SOURCE], [HEAD], [HEAD, TARGET], [SHARED, SOURCE, TARGET, HEAD]):
        back = from_marian(config, weights | dict.fromkeys(names, matrix))
        assert torch.equal(back.target_embedding.weight, ours.target_embedding.weight)
    with pytest.raises(ModelError, match=r"weight model\.shared"):
        from_marian(config, weights)
    with pytest.raises(ModelError, match=r"lm_head\.weight and model\.shared.*differ"):
        from_marian(config, weights | {SHARED: matrix, HEAD: matrix + 1})


def test_an_output_bias_of_another_shape_is_refused():
    config, weights = to_marian(network_of(output_bias=True))
    weights[BIAS] = weights[BIAS][:, 1:]
    with pytest.raises(ModelError, match=r"final_logits_bias has the shape \(29,\).*\(30,\)"):
        from_marian(config, weights)


def test_a_table_of_other_positions_is_refused():
    ours = network_of()
    config, weights = to_marian(ours)
    theirs = marian_of(ours).state_dict()
    name = "model.decoder.embed_positions.weight"
    assert name in theirs
    from_marian(config, weights | {name: theirs[name].half()})
    with pytest.raises(ModelError, match=r"decoder\.embed_positions.* other positions"):
        from_marian(config, weights | {name: theirs[name].roll(1, 0)})
    for table in (torch.zeros(0, 32), torch.zeros(()), torch.full((4, 32), torch.nan)):
        with pytest.raises(ModelError, match=r"decoder\.embed_positions.* other positions"):
            from_marian(config, weights | {name: table})


def test_an_embedding_of_integers_is_refused():
    config, weights = to_marian(network_of())
    with pytest.raises(ModelError, match=r"shape \(30, 32\) in torch\.int64"):
        from_marian(config, weights | {SHARED: weights[SHARED].long()})


def test_exported_and_imported_weights_are_copies():
    ours = network_of(output_bias=True)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for tensor in to_marian(ours).weights.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    config, weights = to_marian(ours)
    back = from_marian(config, weights)
    for tensor in weights.values():
        tensor.zero_()
    assert torch.equal(back.target_embedding.weight, ours.target_embedding.weight)
    assert torch.equal(back.output_bias, ours.output_bias)
