"""Run the commands of docs/how-to/fine-tuning.md with random weights and a small corpus."""

import json
from pathlib import Path

import pytest
import torch
from support.marian import write_model, write_tokenizer
from support.pages import commands
from transformers import AutoTokenizer, MarianMTModel, MarianTokenizer

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.storage.locations import cache_folder, open_location
from model.config.transformer import DecodingConfig
from model.generation.search import greedy_search
from model.hugging_face.files import read_model
from model.hugging_face.marian import from_marian
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import RunMismatchError
from transloom.inference.translator import Translator

pytestmark = pytest.mark.long

PAGE = "how-to/fine-tuning.md"
LINES = 200
SHORT = [
    *("decoding.max_length_factor=0.1", "decoding.max_extra_length=2", "decoding.beam_size=1"),
    *("tracking.wandb=disabled", "--inline", "--run", "runs/tuned"),
]
FEW = ["trainer.max_steps=2", "trainer.frozen=['*embedding*','encoder.*']", *SHORT]
TAG = ">>fra<<"
GREEDY = DecodingConfig(max_length_factor=1, max_extra_length=6)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with the models and texts that the page's commands use."""
    monkeypatch.chdir(tmp_path)
    texts = []
    for language in ("en", "fr"):
        name = f"builtin:phrasebook/train.{language}"
        with open_location(name, mirror=None, cache=cache_folder(None), sha256=None) as stream:
            texts.append(stream.read().decode().splitlines()[:LINES])
        Path(f"mine.{language}").write_text("".join(f"{line}\n" for line in texts[-1]))
    Path("new.en").write_text("".join(f"{line}\n" for line in texts[0][:3]))
    for name, tags in (("opus-mt-en-fr", ()), ("opus-mt-en-ROMANCE", (">>fra<<", ">>por<<"))):
        size = write_tokenizer(Path(name), tuple(texts), 100, tags)
        model = write_model(Path(name), size)
    weights = Path("opus-mt-en-ROMANCE") / "model.safetensors"
    weights.unlink()
    torch.save(model.state_dict(), weights.with_name("pytorch_model.bin"))
    return tmp_path


def test_the_commands_of_the_fine_tuning_page_succeed(transloom, place):
    found = commands(PAGE)
    assert [name for name, *_ in found] == [
        *("init", "prepare", "train", "translate", "export"),
        "init",
    ]
    for command in found:
        result = transloom(*command, *(FEW if command[0] == "train" else []))
        assert result.exit_code == 0, (command, result.output)
        if command[0] == "translate":
            assert len(result.stdout.splitlines()) == 3
    card = json.loads(Path("runs/tuned/run.json").read_text())
    assert card["parent"]["run_id"] == "opus-mt-en-fr"
    assert "are frozen" in Path("runs/tuned/log.txt").read_text()
    theirs = from_marian(*read_model(Path("opus-mt-en-fr")))
    checkpoint = Checkpoint(list_checkpoints(Path("runs/tuned/checkpoints"))[-1])
    weights = CheckpointReader(checkpoint).weights()
    for name, weight in theirs.named_parameters():
        stays = "embedding" in name or name.startswith("encoder.")
        assert torch.equal(weights[name], weight) == stays, name
    assert_transformers_have_the_same_model(weights)
    tagged = load_recipe(Path("romance.yaml"))
    assert tagged.data.train[0].tag == tagged.data.validation.tag == ">>fra<<"
    assert (Path("opus-mt-en-ROMANCE") / "model.safetensors").is_file()  # converted by init
    with pytest.raises(RunMismatchError, match=r"init_from: the tokenizer of .*ROMANCE"):
        transloom("train", "tuned.yaml", "trainer.init_from=opus-mt-en-ROMANCE", "--inline")


@torch.no_grad()
def assert_transformers_have_the_same_model(weights):
    """Assert that transformers load the exported model with equal tokenizers and logits."""
    back = Path("tuned-en-fr")
    for name in ("source.spm", "target.spm"):
        assert (back / name).read_bytes() == (Path("opus-mt-en-fr") / name).read_bytes()
    first, again = (
        json.loads((folder / "vocab.json").read_text()) for folder in (Path("opus-mt-en-fr"), back)
    )
    assert first == again
    ours = from_marian(*read_model(Path("opus-mt-en-fr"))).eval()
    ours.load_state_dict(weights)
    theirs = MarianMTModel.from_pretrained(back).eval()
    tokenizer = MarianTokenizer.from_pretrained(back)
    lines = Path("mine.en").read_text().splitlines()[:5]
    batch = tokenizer(lines, padding=True, return_tensors="pt")
    targets = torch.arange(20).repeat(5, 1)
    targets[:, 0] = ours.vocabulary.pad_id
    logits = theirs(**batch, decoder_input_ids=targets).logits
    source = batch["input_ids"]
    found = ours.logits(ours.decode(targets, ours.encode(source), source))
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [3, pytest.param(100, marks=pytest.mark.lab)])
def test_a_tuned_model_translates_the_same_in_transformers(transloom, place, steps):
    """The model comes in several weight files, has a tag, and all its weights are trained."""
    theirs = Path("opus-mt-en-ROMANCE")
    model = write_model(theirs, len(json.loads((theirs / "vocab.json").read_text())))
    for name in ("model.safetensors", "pytorch_model.bin"):
        (theirs / name).unlink()
    model.save_pretrained(theirs, max_shard_size="20KB")
    assert len(list(theirs.glob("model-0*.safetensors"))) > 1
    init = next(command for command in commands(PAGE) if "--tag" in command)
    assert TAG in init
    for command in (
        init,
        ["prepare", "romance.yaml"],
        ["train", "romance.yaml", f"trainer.max_steps={steps}", *SHORT],
        ["export", "runs/tuned", "back"],
    ):
        result = transloom(*command)
        assert result.exit_code == 0, (command, result.output)
    assert not (theirs / "model.safetensors").exists()
    ours = Translator.load("runs/tuned")
    assert ours.checkpoint.step == steps
    before = dict(from_marian(*read_model(theirs)).named_parameters())
    for name, weight in ours.model.named_parameters():
        assert not torch.equal(weight, before[name]), name
    assert_it_translates_there_as_here(ours, Path("back"))


@torch.no_grad()
def assert_it_translates_there_as_here(ours, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = MarianMTModel.from_pretrained(folder).eval()
    vocabulary = ours.model.vocabulary
    found = set()
    for line in [*Path("mine.en").read_text().splitlines()[:6], "", "a</s> b", "日本 <pad>"]:
        ids = ours.source_ids(line, TAG)
        assert tokenizer(f"{TAG} {line}")["input_ids"] == ids, line
        source = torch.tensor([ids])
        (mine,) = greedy_search(ours.model, source, GREEDY)
        (made,) = theirs.generate(source, num_beams=1, max_new_tokens=len(ids) + 6).tolist()
        assert made == [vocabulary.bos_id, *mine.ids, vocabulary.eos_id], line
        target = torch.tensor([made[:-1]])
        logits = theirs(source, decoder_input_ids=target).logits
        here = ours.model.logits(ours.model.decode(target, ours.model.encode(source), source))
        largest = logits.abs().max().item()
        torch.testing.assert_close(here, logits, rtol=0, atol=1e-5 * largest)
        found.add(mine.ids)
    assert len(found) > 3


def test_init_requires_a_tag_for_a_model_of_several_languages(transloom, place):
    command = next(c for c in commands(PAGE) if "--tag" in c)
    with pytest.raises(RecipeError, match=r"has 2 tags.*such as >>fra<<, >>por<<"):
        transloom(*command[: command.index("--tag")])
    assert not Path("romance.yaml").exists()
    with pytest.raises(RecipeError, match=r"mine\.en has no config\.json"):
        transloom("init", "my.yaml", "--source", "mine.en", "--target", "mine.fr", "--init-from",
                  "mine.en")  # fmt: skip
