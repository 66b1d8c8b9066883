"""Networks in Hugging Face's layouts, compared with the classes that read them."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.large_weights import make_weights_large
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from model.config.decoder_only import SamplingConfig
from model.errors import ModelError
from model.generation.sampling import generate
from model.hugging_face.language_model import (
    from_hugging_face,
    load_hugging_face,
    save_hugging_face,
    to_hugging_face,
)
from model.losses.loss import CrossEntropy

PIECES, CONTEXT = 30, 24
EOS = 3
SPECIAL = {"bos_token_id": 2, "eos_token_id": EOS, "pad_token_id": 0}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": CONTEXT,
}
FORMS = {
    "gpt2": (GPT2Config, GPT2),
    "gpt2 untied": (GPT2Config, GPT2 | {"tie_word_embeddings": False}),
    "gpt2 other": (
        GPT2Config,
        GPT2 | {"n_inner": 50, "activation_function": "relu", "layer_norm_epsilon": 0.1},
    ),
    "gpt2 gelu": (GPT2Config, GPT2 | {"activation_function": "gelu"}),
    "llama": (LlamaConfig, LLAMA),
    "llama grouped": (LlamaConfig, LLAMA | {"num_key_value_heads": 2, "rms_norm_eps": 0.1}),
    "llama multi-query": (LlamaConfig, LLAMA | {"num_key_value_heads": 1}),
    "llama tied, biased": (
        LlamaConfig,
        LLAMA
        | {
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
        },
    ),
}
# The settings of our network that each layout can represent.
OURS = {
    "gpt2": {"preset": "gpt2", "heads": 2},
    "gpt2 untied": {"preset": "gpt2", "tie_embeddings": False, "activation": "gelu"},
    "gpt2 other": {
        **{"preset": "gpt2", "activation": "relu", "norm_epsilon": 0.1},
        **{"dropout": 0.25, "attention_dropout": 0.5},
    },
    "llama": {"preset": "llama"},
    "llama grouped": {"preset": "llama", "key_value_heads": 2, "norm_epsilon": 0.1},
    "llama tied, biased": {
        "preset": "llama",
        "attention_dropout": 0.5,
        "bias": True,
        "tie_embeddings": True,
        "rotary_base": 300.0,
    },
}


def theirs_of(form, seed=1):
    """Return a transformers network with large weights and vectors that are neither 0 nor 1."""
    kind, settings = FORMS[form]
    config = kind(vocab_size=PIECES, attn_implementation="eager", **SPECIAL, **settings)
    torch.manual_seed(seed)
    network = (GPT2LMHeadModel if kind is GPT2Config else LlamaForCausalLM)(config).eval()
    return make_weights_large(network, 8, moved=0.1)


def config_of(theirs, *, defaults=True):
    return json.loads(theirs.config.to_json_string(use_diff=not defaults))


def texts(length, rows=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(4, PIECES, (rows, length), generator=generator)


def same_logits(ours, theirs, length=20):
    ids = texts(length)
    with torch.no_grad():
        found = ours.logits(ours.hidden(ids, torch.zeros_like(ids)))
        expected = theirs(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert expected.std() > 0.5  # predictions differ between texts


def same_greedy_tokens(ours, theirs, new=10):
    prompts = texts(7)
    sampling = SamplingConfig(temperature=0, max_new_tokens=new)
    found = generate(ours, prompts.tolist(), sampling, EOS)
    expected = theirs.generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=new
    )
    for mine, row in zip(found, expected[:, 7:].tolist(), strict=True):
        own = row[: row.index(EOS)] if EOS in row else row
        assert list(mine.ids) == own
        assert mine.ended == ("eos" if EOS in row else "length")
    assert len({each.ids for each in found}) > 1


@pytest.mark.parametrize("form", FORMS)
def test_imported_networks_have_the_same_logits_and_greedy_tokens(form):
    theirs = theirs_of(form)
    # A folder that save_pretrained wrote has no values that are the defaults.
    for defaults in (True, False):
        config = config_of(theirs, defaults=defaults)
        ours = from_hugging_face(config, theirs.state_dict()).eval()
        same_logits(ours, theirs)
    same_greedy_tokens(ours, theirs)


@pytest.mark.parametrize("form", ["gpt2", "gpt2 untied", "llama grouped", "llama tied, biased"])
def test_imported_networks_have_the_same_losses_and_gradients(form):
    theirs = theirs_of(form)
    config = config_of(theirs) | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ours = from_hugging_face(config, theirs.state_dict())
    ids = texts(12)
    loss = ours(ids[:, :-1], ids[:, 1:], torch.zeros_like(ids[:, 1:]), CrossEntropy()).smoothed
    expected = theirs(input_ids=ids, labels=ids).loss * ids[:, 1:].numel()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.grad)
    gradients = to_hugging_face(ours).weights
    named = dict(theirs.named_parameters())
    assert gradients.keys() == named.keys()
    for name, parameter in named.items():
        scale = parameter.grad.abs().max().item()
        torch.testing.assert_close(
            gradients[name], parameter.grad, rtol=0, atol=2e-5 * scale, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("form", OURS)
def test_exported_networks_have_the_same_logits_in_transformers(build_decoder_only, form, tmp_path):
    ours = build_decoder_only(pieces=PIECES, **OURS[form]).eval()
    save_hugging_face(ours, tmp_path / "new" / "folder", bos_id=2, eos_id=EOS, pad_id=None)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new" / "folder", attn_implementation="eager"
    ).eval()
    settings = theirs.config
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (2, EOS, None)
    if form.startswith("gpt2"):
        assert settings.resid_pdrop == settings.embd_pdrop == ours.config.dropout
        assert settings.attn_pdrop == ours.config.attention_dropout
    else:
        assert settings.attention_dropout == ours.config.attention_dropout
    same_logits(ours, theirs)
    theirs.generation_config.pad_token_id = 0
    same_greedy_tokens(ours, theirs)

    again = load_hugging_face(tmp_path / "new" / "folder")
    assert (again.context_length, again.vocabulary_size) == (CONTEXT, PIECES)
    dropped = {"preset": again.config.preset}
    assert again.config == ours.config.model_copy(update=dropped)
    for (name, one), (other, two) in zip(
        ours.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two)
        assert two.requires_grad


def test_the_dtype_of_weights_is_kept_by_export_and_import(build_decoder_only):
    described, weights = to_hugging_face(build_decoder_only(preset="llama").bfloat16())
    assert described["dtype"] == "bfloat16"
    network = from_hugging_face(described, weights)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_exported_and_imported_weights_are_copies(build_decoder_only):
    ours = build_decoder_only(preset="llama")
    described, weights = to_hugging_face(ours)
    again = from_hugging_face(described, weights)
    for tensor in weights.values():
        tensor.zero_()
    for one, two in zip(ours.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.any()


def test_tensor_names_of_older_gpt2_files_are_read(build_decoder_only):
    """As in published GPT-2 files, names lack a prefix, and constants are among the weights."""
    ours = build_decoder_only(preset="gpt2")
    described, weights = to_hugging_face(ours)
    old = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT).tril()
    old["lm_head.weight"] = old["wte.weight"].clone()
    again = from_hugging_face(described, old)
    for one, two in zip(ours.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"positions": "sinusoidal"},
            r"GPT-2 has no positions=sinus.*Llama has no .*norm_kind=l",
        ),
        ({"preset": "gpt2", "key_value_heads": 2}, r"GPT-2 has no key_value_heads=2; Llama"),
        ({"preset": "gpt2", "bias": False}, r"GPT-2 has no bias=False"),
        ({"preset": "llama", "activation": "gelu"}, r"Llama has no activation=gelu"),
        ({"preset": "llama", "norm_kind": "layer"}, r"Llama has no norm_kind=layer"),
    ],
)
def test_a_network_that_no_layout_represents_is_not_exported(build_decoder_only, settings, message):
    with pytest.raises(ModelError, match=message):
        to_hugging_face(build_decoder_only(**settings))


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("gpt2", {"model_type": "gptj"}, "model_type of the config is 'gptj'"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights of the config is False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx"),
        ("gpt2", {"activation_function": "silu"}, "activation_function of the config is 'silu'"),
        ("gpt2", {"embd_pdrop": 0.2}, "embd_pdrop of the config is 0.2.* 0.1"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"n_layer": "two"}, "n_layer of the config is 'two'"),
        ("gpt2", {"n_head": 5}, "width is 32.*heads = 5"),
        ("gpt2", {"n_layer": 4}, r"weight transformer.h.3.ln_1"),
        ("gpt2", {"n_layer": 2}, r"belong to GPT-2: 12, such as transformer.h.2.attn"),
        ("gpt2", {"n_inner": 64}, r"c_fc.bias has the shape \(128,\).* must be \(64,\)"),
        ("gpt2", {"vocab_size": 31}, r"wte.weight has the shape \(30, 32\).*\(31, 32\)"),
        (
            "gpt2 untied",
            {"tie_word_embeddings": True},
            "lm_head.weight differs from transformer.wte",
        ),
        ("gpt2", {"tie_word_embeddings": False, "model_type": "llama"}, "hidden_size"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act of the config is 'gelu'"),
        ("llama", {"head_dim": 16}, "head_dim of the config is 16.* 8"),
        ("llama", {"mlp_bias": True}, "mlp_bias of the config is True"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_type of .* 'llama3'"),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "'linear'"),
        (
            "llama",
            {"num_key_value_heads": 2},
            r"k_proj.weight has the shape \(32, 32\).*\(16, 32\)",
        ),
    ],
)
def test_a_config_with_settings_that_our_network_lacks_is_refused(form, change, message):
    theirs = theirs_of(form)
    with pytest.raises(ModelError, match=message):
        from_hugging_face(config_of(theirs) | change, theirs.state_dict())


def test_the_rotary_base_of_older_configs_is_read(build_decoder_only):
    ours = build_decoder_only(preset="llama", rotary_base=300.0)
    described, weights = to_hugging_face(ours)
    del described["rope_parameters"]
    assert from_hugging_face(described, weights).config.rotary_base == 300.0
    del described["rope_theta"]
    assert from_hugging_face(described, weights).config.rotary_base == 10000.0


@pytest.fixture
def saved(build_decoder_only, tmp_path):
    network = build_decoder_only(preset="llama")
    save_hugging_face(network, tmp_path, bos_id=2, eos_id=EOS, pad_id=0)
    return network, tmp_path


def test_weights_in_several_files_are_read_by_their_index(saved):
    network, folder = saved
    (folder / "model.safetensors").unlink()
    weights = to_hugging_face(network).weights
    names = sorted(weights)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for one, two in zip(network.parameters(), load_hugging_face(folder).parameters(), strict=True):
        assert torch.equal(one, two)
    (folder / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"names two\.safetensors, but the folder"):
        load_hugging_face(folder)


@pytest.mark.parametrize("name", ["../one.safetensors", "/one.safetensors", "model.bin", 3])
def test_an_index_that_names_a_file_elsewhere_is_refused(saved, name):
    _, folder = saved
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="weight_map of"):
        load_hugging_face(folder)


def test_a_folder_with_only_a_pickle_is_refused(saved):
    _, folder = saved
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"neither model.safetensors nor .*pickle"):
        load_hugging_face(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_config_or_weights_file_is_reported(saved, file):
    _, folder = saved
    (folder / file).write_bytes((folder / file).read_bytes()[:-9])
    with pytest.raises(ModelError, match=f"{file} cannot be read"):
        load_hugging_face(folder)
