"""Exported encoders, read by transformers: tokenizer.json and the network."""

import hashlib
import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tasks.masking import MASK
from data_pipeline.tokenizers.tokenizer import train_tokenizer
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import to_bert_labels
from model.hugging_face.files import write_model
from run_store.checkpoints.fragment import MASTER
from run_store.errors import RunError, RunMismatchError
from trainer.start.model_folder import origin_of, weights_files
from trainer.state.folder_weights import folder_weights
from transloom.inference.export.fast_tokenizer import tokenizer_files
from transloom.inference.export.hugging_face import write_bert, write_bert_of_pairs

FILES = [f"{name}.{code}" for name in ("val", "test_2016_flickr") for code in ("en", "de", "fr")]
SYLLABLES = ("ka", "ri", "mo", "tel", "shu", "ban")
WORDS = ["".join(word) for word in itertools.product(SYLLABLES, repeat=3)]
TEXTS = [f"{word} {word[::-1]}ing" for word in WORDS]
# Strings on which tokenizers often differ.
NASTY = [
    "",
    " ",
    "  two  spaces ",
    "a\ttab and\nan end",
    "▁ ▁▁ a▁b",
    "<0x41>",
    "İstanbul ﬁne ½ ℌ",
    "caf\u0065\u0301 l’été",
    "日本 x日本y 🙂🙂 dog🙂",
    "\u200bdog\u00a0tree",
    "a" * 200,
    "ab" * 50,
    "“why” — don't…",
    "two lines\n\n end \n",
    "␊ ␛n ␛e ␛ ▅ \x1f",
]
KINDS = pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in ("bpe", "unigram", "char")),
        *((kind, {"byte_fallback": True}) for kind in ("bpe", "unigram")),
        *((kind, {"verbatim": True}) for kind in ("bpe", "unigram", "char")),
        ("bpe", {"verbatim": True, "byte_fallback": True}),
    ],
    ids=str,
)


def trained(texts, kind="bpe", size=1000, **settings):
    config = TokenizerConfig(type=kind, vocabulary_size=size, **settings)
    return train_tokenizer(texts, config, "tokenizer.model", [MASK])


def with_ends(tokenizer, texts):
    ends = tokenizer.bos_id, tokenizer.eos_id
    return [[ends[0], *ids.tolist(), ends[1]] for ids in tokenizer.encode(texts)]


@pytest.mark.matrix
@KINDS
def test_exported_tokenizers_give_the_ids_of_sentencepiece(multi30k, kind, settings):
    lines = [line for f in FILES for line in (multi30k / f).read_text("utf-8").splitlines()[::2]]
    assert len(lines) > 3000
    tokenizer = trained(lines[::3], kind, **settings)
    files = tokenizer_files(tokenizer, MASK, 64)
    fast = FastTokenizer.from_str(files["tokenizer.json"].decode())
    # A unigram model with bytes reads "<0x41>" as that byte if its vocabulary lacks "<".
    nasty = [text for text in NASTY if text != "<0x41>" or kind != "unigram"]
    for texts in (lines, nasty):
        assert [found.ids for found in fast.encode_batch(texts)] == with_ends(tokenizer, texts)
    unknown = tokenizer.unk_id
    for ids in with_ends(tokenizer, [*lines[::10], *NASTY]):
        if unknown not in ids:
            assert fast.decode(ids) == tokenizer.decode([ids])[0]


def test_exporting_a_bytes_tokenizer_is_refused():
    with pytest.raises(RunError, match=r"bytes\.model is of the kind bytes"):
        tokenizer_files(SimpleNamespace(name="bytes.model", kind="bytes"), MASK, 64)


@pytest.fixture(scope="module")
def network_of_syllables():
    """Return a network with large weights, and its tokenizer."""
    tokenizer = trained(TEXTS, size=120)
    config = EncoderOnlyConfig(preset="bert", layers=2, width=32, heads=4, dropout=0.0)
    torch.manual_seed(0)
    network = MaskedLanguageModel(config, tokenizer.vocabulary_size, 64).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network, tokenizer


@pytest.fixture(scope="module")
def exported(network_of_syllables, tmp_path_factory):
    """Return the network, its tokenizer, and the folder of their export."""
    network, tokenizer = network_of_syllables
    folder = tmp_path_factory.mktemp("exported") / "bert"
    folder.mkdir()
    trained_network = SimpleNamespace(model=network, tokenizers={TEXT: tokenizer})
    assert write_bert(trained_network, folder) == "BertForMaskedLM"
    return network, tokenizer, folder


@torch.no_grad()
def test_transformers_computes_the_same_logits_from_the_export(exported):
    network, tokenizer, folder = exported
    theirs = AutoTokenizer.from_pretrained(folder)
    assert (theirs.mask_token, theirs.pad_token_id) == (MASK, tokenizer.pad_id)
    texts = [f"karimo {MASK} telshuban", "moriing ka"]
    batch = theirs(texts, padding=True, return_tensors="pt")
    before, after = (ids.tolist() for ids in tokenizer.encode(["karimo", "telshuban"]))
    first = [tokenizer.bos_id, *before, tokenizer.tag_id(MASK), *after, tokenizer.eos_id]
    assert batch["input_ids"][0].tolist() == first
    real = batch["attention_mask"].bool()
    found = AutoModelForMaskedLM.from_pretrained(folder).eval()(**batch).logits
    ids = batch["input_ids"]
    position = torch.arange(ids.shape[1]).expand_as(ids)
    hidden = network.encoder(ids, torch.zeros_like(ids), position, real.long() - 1)
    expected = network.logits(hidden)
    assert (found - expected)[real].abs().max() <= 1e-5 * expected.abs().max()
    pair = theirs("karimo", "moriing")
    assert pair["token_type_ids"].count(1) == len(tokenizer.encode(["moriing"])[0]) + 1


@torch.no_grad()
def test_the_code_of_the_model_card_gives_the_same_logits_for_pairs(network_of_syllables, tmp_path):
    network, tokenizer = network_of_syllables
    data = PairDataConfig.model_construct(source_language="en", target_language="de")
    trained = SimpleNamespace(
        model=network,
        tokenizers=dict.fromkeys((SOURCE, TARGET), tokenizer),
        recipe=SimpleNamespace(data=data),
    )
    assert write_bert_of_pairs(trained, tmp_path) == "BertForMaskedLM"
    card = (tmp_path / "README.md").read_text()
    assert "# en and de" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace("FOLDER", str(tmp_path)).replace("… <mask> …", f"karimo {MASK} telshuban")
    known = {}
    exec(code.replace('"…"', '"moriing kaban"'), known)  # noqa: S102
    sides = [["karimo", MASK, "telshuban"], ["moriing kaban"]]
    ends, row, segments, positions = (tokenizer.bos_id, tokenizer.eos_id), [], [], []
    for segment, texts in enumerate(sides):
        ids = [
            id_
            for text in texts
            for id_ in (
                [tokenizer.tag_id(MASK)] if text == MASK else tokenizer.encode([text])[0].tolist()
            )
        ]
        row += [ends[0], *ids, ends[1]]
        segments += [segment] * (len(ids) + 2)
        positions += range(len(ids) + 2)
    ids_bt, segment_bt, position_bt = torch.tensor([[row], [segments], [positions]])
    assert known["ids"].tolist() == ids_bt.tolist()
    assert known["batch"]["token_type_ids"].tolist() == segment_bt.tolist()
    hidden = network.encoder(ids_bt, segment_bt, position_bt, torch.zeros_like(ids_bt))
    expected = network.logits(hidden)
    assert (known["logits"] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_run_can_start_from_an_export_only_with_the_same_tokenizer(exported):
    _, tokenizer, folder = exported
    same = hashlib.sha256(tokenizer.model).hexdigest()
    manifest = SimpleNamespace(tokenizers={TEXT: SimpleNamespace(sha256=same)})
    assert origin_of(folder, manifest).run_id == "bert"
    assert [file.name for file in weights_files(folder)] == ["model.safetensors"]
    other = SimpleNamespace(tokenizers={TEXT: SimpleNamespace(sha256="0" * 64)})
    with pytest.raises(RunMismatchError, match=rf"tokenizer\.model_sha256={same}"):
        origin_of(folder, other)
    model = folder / "tokenizer.model"
    model.rename(folder / "elsewhere")
    try:
        with pytest.raises(RunMismatchError, match=r"bert has no tokenizer\.model.*WordPiece"):
            origin_of(folder, manifest)
    finally:
        (folder / "elsewhere").rename(model)


def engine_of(network):
    """Return an object with the attributes of an engine that `folder_weights` uses."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    return SimpleNamespace(module=network, parameter_shapes=shapes)


def reader_of(folder, network):
    """Return a function that reads a range of a parameter's state as a new tensor."""
    found = folder_weights(folder, engine_of(network))
    assert not found.fresh
    fill = found.read

    def read(kind, name, start, stop):
        target = torch.ones(stop - start)
        fill(kind, name, start, target)
        return target

    return read


def test_folder_weights_reads_the_weights_of_an_export(exported):
    network, tokenizer, folder = exported
    read = reader_of(folder, network)
    for name, parameter in network.named_parameters():
        weight = parameter.detach().flatten()
        assert torch.equal(read(MASTER, name, 0, len(weight)), weight), name
        assert torch.equal(read(MASTER, name, 1, 3), weight[1:3])
        assert not read("exp_avg", name, 0, len(weight)).any()
    config = network.encoder.config.model_copy(update={"norm_epsilon": 0.1})
    other = MaskedLanguageModel(config, tokenizer.vocabulary_size, 32)
    named = r"norm_epsilon: 0\.1 in the recipe, 1e-12 in .*; batching\.context_length: 32 in"
    with pytest.raises(RunMismatchError, match=named):
        folder_weights(folder, engine_of(other))
    settings = network.encoder.config.model_dump(exclude={"network"})
    sentences = SentenceEncoder(
        SentenceEncoderConfig(**settings, pooling="first"), tokenizer.vocabulary_size, 64
    )
    read = reader_of(folder, sentences)
    for name, parameter in sentences.named_parameters():
        weight = network.get_parameter(name).detach().flatten()
        assert torch.equal(read(MASTER, name, 0, parameter.numel()), weight), name
    with pytest.raises(RunMismatchError, match="network is a Linear"):
        folder_weights(folder, engine_of(torch.nn.Linear(2, 2)))


HEAD = {"pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("labels", "fresh"),
    [
        (("a", "b"), set()),
        (("b", "a"), {"classifier.weight", "classifier.bias"}),
        (("a", "b", "c"), {"classifier.weight", "classifier.bias"}),
    ],
)
def test_a_classifiers_head_is_loaded_only_for_the_same_labels(exported, tmp_path, labels, fresh):
    network, tokenizer, folder = exported
    settings = network.encoder.config.model_dump(exclude={"network"})
    config, context = LabelTextsConfig(**settings), network.encoder.context_length
    trained = LabelModel(config, tokenizer.vocabulary_size, context, labels=2)
    write_model(tmp_path, to_bert_labels(trained, tokenizer.pad_id, ["a", "b"]))
    new = LabelModel(config, tokenizer.vocabulary_size, context, labels=len(labels))
    found = folder_weights(tmp_path, engine_of(new), labels)
    assert set(found.fresh) == fresh
    assert (found.fresh_text is None) == (not fresh)
    target = torch.ones(2)
    found.read(MASTER, "pooler.bias", 3, target)
    assert torch.equal(target, trained.pooler.bias[3:5])
    assert set(folder_weights(folder, engine_of(new), labels).fresh) == HEAD  # from a masked model
