"""`transloom import`: turn a network of transformers into a run, and train from this run."""

import json

import pytest
import torch
from support.files.json_files import edited_json
from support.recipes import write_yaml
from support.runs import Runs
from support.tasks import language_model_values
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from cluster.errors import RecipeError
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from model.errors import ModelError
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import RunMismatchError
from transloom.inference.text_generator import TextGenerator

LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "dtype": "bfloat16",
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
FORMS = {
    "llama": (LlamaConfig, LLAMA, {"key_value_heads": 2, "feed_forward_width": 40}),
    "gpt2": (GPT2Config, GPT2, {"preset": "gpt2"}),
}


@pytest.fixture(scope="module")
def tokenizer(phrasebook_documents):
    from cluster.recipe import Recipe

    recipe = Recipe.of(language_model_values(phrasebook_documents))
    return load_tokenizers(*open_dataset(recipe.data))["text"]


@pytest.fixture(params=list(FORMS))
def form(request):
    return request.param


@pytest.fixture
def given(form, tokenizer, phrasebook_documents, tmp_path):
    """Return a folder with random weights, and the path of a recipe for this network."""
    config_class, settings, ours = FORMS[form]
    torch.manual_seed(7)
    config = config_class(
        vocab_size=tokenizer.vocabulary_size,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        **settings,
    )
    network = AutoModelForCausalLM.from_config(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.save_pretrained(tmp_path / "theirs")
    values = language_model_values(phrasebook_documents, **ours)
    values["trainer"] |= {"max_steps": 1, "validate_every_steps": 1}
    recipe = write_yaml(tmp_path / "recipe.yaml", values)
    return tmp_path / "theirs", recipe


@pytest.fixture
def imported(transloom, given, tmp_path):
    """Return a function that imports the folder, with overrides of the recipe."""

    def run(*overrides, name="imported"):
        folder, recipe = given
        found = transloom(
            "import", folder, tmp_path / name, *overrides, "--recipe", recipe, "--json"
        )
        return json.loads(found.stdout)

    return run


def test_an_imported_run_computes_the_same_logits(transloom, imported, given, tmp_path, tokenizer):
    answer = imported()
    theirs = AutoModelForCausalLM.from_pretrained(given[0], dtype=torch.float32).eval()
    assert answer["checkpoint"] == "step-00000000"
    assert answer["parameters"] == sum(p.numel() for p in theirs.parameters())
    ours = TextGenerator.load(tmp_path / "imported")
    prompt = torch.tensor([ours.read_ids("the cat")])
    with torch.no_grad():
        found = ours.network.logits(ours.network.hidden(prompt, torch.zeros_like(prompt)))
        torch.testing.assert_close(found, theirs(prompt).logits, rtol=1e-5, atol=1e-5)
    generated = transloom("generate", tmp_path / "imported", "the cat", "--temperature", 0)
    assert generated.stdout.startswith("the cat")
    scores = json.loads(transloom("evaluate", tmp_path / "imported", "--json").stdout)
    assert scores["phrasebook"]["loss"] > 0


def test_an_imported_run_exports_its_original_weights(transloom, imported, given, tmp_path):
    imported()
    assert transloom("export", tmp_path / "imported", tmp_path / "back").exit_code == 0
    first, again = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (given[0], tmp_path / "back")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_run_can_start_from_imported_weights(imported, given, tmp_path):
    """Both runs use one recipe, whose init_from names the imported run."""
    start = f"trainer.init_from={tmp_path / 'imported'}"
    imported(start)
    rate = "trainer.schedule.peak_learning_rate=1.0e-30"  # so small that no weight changes
    runs = Runs(given[1], tmp_path, address="")
    result = runs.train("tuned", start, rate, inline=True)
    first, tuned = (
        CheckpointReader(Checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]))
        for name in ("imported", "tuned")
    )
    assert result.step == 1
    assert ("exp_avg", "embedding.weight") in tuned.names
    assert {kind for kind, _ in first.names} == {"master"}
    for name, weight in first.weights().items():
        torch.testing.assert_close(tuned.weights()[name], weight)


def test_an_imported_run_cannot_be_resumed(transloom, imported, given, tmp_path):
    imported()
    runs = Runs(given[1], tmp_path, address="")
    message = r"imported from .*theirs .* cannot resume .*trainer\.init_from=.*imported"
    with pytest.raises(RunMismatchError, match=message):
        runs.train("imported", inline=True)
    rows = json.loads(transloom("checkpoints", "list", tmp_path / "imported", "--json").stdout)
    assert [row["imported_from"] for row in rows] == [str(given[0])]
    table = transloom("checkpoints", "list", tmp_path / "imported")
    assert "imported" in table.stdout
    assert "intact" in transloom("checkpoints", "verify", tmp_path / "imported").stdout
    with pytest.raises(RunMismatchError, match=r"already is a run"):
        imported()


@pytest.mark.parametrize("form", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.layers=3", r"model\.layers: 3 in the recipe, 2 in "),
        ("model.key_value_heads=4", r"model\.key_value_heads: 4 in the recipe, 2 in "),
        ("model.norm_epsilon=0.1", r"model\.norm_epsilon: 0\.1 in the recipe, 1e-06 in "),
        ("model.preset=gpt2", r"model\.positions: learned in the recipe, rotary in "),
    ],
)
def test_import_refuses_a_network_unlike_that_of_the_recipe(imported, tmp_path, override, message):
    with pytest.raises(RunMismatchError, match=message):
        imported(override)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("form", ["gpt2"], indirect=True)
def test_import_refuses_a_different_number_of_learned_positions(imported):
    with pytest.raises(RunMismatchError, match=r"context_length: 8 in the recipe, 16 in "):
        imported("batching.context_length=8")


@pytest.mark.parametrize("form", ["llama"], indirect=True)
def test_import_refuses_another_tokenizer_or_vocabulary_size(imported, given, tokenizer):
    (given[0] / "tokenizer.model").write_bytes(tokenizer.model)
    imported(name="same")
    (given[0] / "tokenizer.model").write_bytes(b"another model")
    with pytest.raises(RunMismatchError, match=r"pieces do not mean the same"):
        imported(name="other")
    with edited_json(given[0] / "config.json") as config:
        config["vocab_size"] = 61
    with pytest.raises(ModelError, match=r"but by the config it must be \(61, 32\)"):
        imported(name="third")


@pytest.mark.parametrize("form", ["llama"], indirect=True)
def test_import_refuses_a_recipe_of_another_task(transloom, given, tmp_path, phrasebook):
    from support.recipes import tiny_values

    recipe = write_yaml(tmp_path / "pairs.yaml", tiny_values(phrasebook))
    with pytest.raises(RecipeError, match=r"task is translation and model\.network is transformer"):
        transloom("import", given[0], tmp_path / "run", "--recipe", recipe)
