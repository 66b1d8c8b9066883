"""training.js compared with model/losses/loss.py, and its dropout with the model's."""

import math

import pytest
import torch
from support.live_model import ask

import model.blocks.attention
import model.blocks.dropout
from model.config.transformer import AttentionBackend
from model.losses.loss import CrossEntropy, label_smoothed_sums
from model.networks.transformer import Transformer
from transloom.inference.translator import Translator
from transloom.observe.explain.live.packing import packed
from transloom.observe.explain.live.panel import training_settings

SENTENCE, REFERENCE = "elle sera étudiante", "she will be a student 漢"
RATES = {"dropout": 0.3, "attention_dropout": 0.2}
VARIANTS = {
    "post": {},
    "pre, own embeddings": {"norm": "pre", "share_embeddings": "none"},
    "with a bias of the output": {"output_bias": True, "activation": "gelu"},
}


@pytest.fixture(params=VARIANTS)
def translator(request, translator_of):
    made = translator_of(seed=3, **RATES, **VARIANTS[request.param])
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)  # also changes biases and norms
    return made


def asked(translator, folder, smoothing=0.1, rates=RATES, seed=7, row=1):
    source = translator.source_ids(SENTENCE)
    question = {"source": source, "reference": REFERENCE, "smoothing": smoothing}
    (found,) = ask(
        packed(translator),
        folder,
        ("training", {**question, "rates": rates, "seed": seed, "row": row}),
    )
    return found, torch.tensor([source])


@torch.no_grad()
def losses_of(network, source, found, smoothing):
    """Return the training loss of each piece, computed for one piece at a time."""
    pieces = []

    def each(hidden_nd, weight_vd, target_n):
        pieces.extend(
            label_smoothed_sums(hidden_nd[n : n + 1], weight_vd, target_n[n : n + 1], smoothing)
            for n in range(len(target_n))
        )
        return CrossEntropy(smoothing)(hidden_nd, weight_vd, target_n)

    inputs, outputs = (torch.tensor([found[name]]) for name in ("input", "target"))
    whole = network(source, inputs, outputs, each)
    assert sum(float(one.smoothed) for one in pieces) == pytest.approx(float(whole.smoothed))
    return pieces


@pytest.mark.matrix
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_page_computes_the_models_loss_of_each_piece(translator, tmp_path, smoothing):
    found, source = asked(translator, tmp_path, smoothing)
    eos = translator.model.vocabulary.eos_id
    tokenizer = translator.tokenizers[-1]
    assert found["target"] == [*tokenizer.encode([REFERENCE])[0].tolist(), eos]
    assert found["input"] == [translator.model.vocabulary.bos_id, *found["target"][:-1]]
    expected = losses_of(translator.model, source, found, smoothing)
    for live, ours in zip(found["losses"], expected, strict=True):
        assert live["nll"] == pytest.approx(float(ours.nll), rel=1e-5)
        assert live["smoothed"] == pytest.approx(float(ours.smoothed), rel=1e-5)


def test_target_and_model_distributions_sum_to_1_and_give_the_loss(translator, tmp_path):
    found, _ = asked(translator, tmp_path, 0.1, row=2)
    right, *others, left = found["wanted"]
    size = translator.model.vocabulary.target_size
    assert (right["id"], len(others), left["count"]) == (found["target"][2], 4, size - 5)
    assert right["wanted"] == pytest.approx(0.9 + 0.1 / size)
    assert {round(one["wanted"] * size, 9) for one in others} == {0.1}
    for name in ("wanted", "said"):
        assert math.fsum(one[name] for one in found["wanted"]) == pytest.approx(1, abs=1e-6)
    whole = math.fsum(one["loss"] for one in found["wanted"])
    assert whole == pytest.approx(found["losses"][2]["smoothed"], rel=1e-6)
    assert [one["said"] for one in others] == sorted((o["said"] for o in others), reverse=True)


def test_dropout_masks_have_the_models_positions_rate_and_scale(translator, tmp_path, monkeypatch):
    """Runs the network in training mode with the page's masks in place of random ones."""
    found, source = asked(translator, tmp_path)
    masks = iter(found["masks"])

    def drop(x, share):
        mask = next(masks)
        rate = RATES["attention_dropout" if mask["place"].endswith(".weights") else "dropout"]
        assert share == rate, mask["place"]
        assert list(x.shape[1:]) == mask["shape"], mask["place"]
        assert mask["scale"] == pytest.approx(1 / (1 - rate), rel=1e-4)
        return x * torch.tensor(mask["kept"]).view(x.shape) * mask["scale"]

    monkeypatch.setattr(model.blocks.dropout, "dropout", drop)
    monkeypatch.setattr(model.blocks.attention, "zero_some", drop)
    network = Transformer(
        translator.model.config, translator.model.vocabulary, AttentionBackend.MATMUL
    )
    network.load_state_dict(translator.model.state_dict())
    expected = losses_of(network.train(), source, found, 0.1)
    assert next(masks, None) is None
    for live, ours in zip(found["dropped"], expected, strict=True):
        assert live["smoothed"] == pytest.approx(float(ours.smoothed), rel=1e-5)
    kept = [
        bit for mask in found["masks"] for bit in mask["kept"] if "weights" not in mask["place"]
    ]
    assert abs(1 - sum(kept) / len(kept) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / len(kept))


def test_masks_depend_on_the_seed_and_are_absent_at_rate_0(translator_of, tmp_path):
    translator = translator_of()
    first, again, other = (asked(translator, tmp_path, seed=seed)[0] for seed in (1, 1, 2))
    assert first["masks"] == again["masks"] != other["masks"]
    none, _ = asked(translator, tmp_path, rates={"dropout": 0, "attention_dropout": 0})
    assert none["masks"] == []
    assert none["dropped"] == none["losses"]


def test_training_settings_come_from_the_checkpoint(untrained_run):
    settings = training_settings(Translator.load(untrained_run.path))
    assert settings == {
        "loss": "cross_entropy",
        "label_smoothing": 0.1,
        "r_drop": 0.0,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "pairs": [],
        "longest": 25,
    }
