"""`transloom generate`, `evaluate` and `export` of a language model."""

import json
from io import BytesIO, TextIOWrapper

import pytest
import torch
from support.invocation import json_lines_of, lines_of
from support.recipes import write_yaml
from support.runs import Runs
from support.tasks import language_model_values
from support.walk import page_in_file
from transformers import AutoModelForCausalLM

from cluster.errors import RecipeError
from model.errors import ModelError
from run_store.errors import RunError, RunMismatchError
from transloom.inference.batch_size import max_texts_per_batch
from transloom.inference.text_generator import TextGenerator

FORMS = {"llama": {}, "gpt2": {"preset": "gpt2"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, phrasebook_documents):
    """Return a briefly trained run of each network form, by name."""
    folder = tmp_path_factory.mktemp("texts")
    found = {}
    for name, form in FORMS.items():
        values = language_model_values(phrasebook_documents, **form)
        values["trainer"] |= {"max_steps": 8, "validate_every_steps": 8}
        recipe = write_yaml(folder / f"{name}.yaml", values)
        found[name] = Runs(recipe, folder, address="")
        found[name].train(name, inline=True)
    return found


@pytest.fixture(params=list(FORMS))
def run(request, runs):
    return runs[request.param].folder / request.param


@pytest.fixture
def llama(runs):
    return runs["llama"].folder / "llama"


def test_generate_prints_the_same_text_for_the_same_seed(transloom, run):
    first = lines_of(transloom("generate", run, "the cat", "--seed", 5))
    assert first[0].startswith("the cat")
    assert len(first[0]) > len("the cat")
    assert lines_of(transloom("generate", run, "the cat", "--seed", 5)) == first
    assert lines_of(transloom("generate", run, "the cat", "--seed", 6)) != first


def test_a_text_does_not_depend_on_the_other_prompts_of_a_batch(transloom, llama, monkeypatch):
    """Nor does a text depend on the batch size."""
    prompts = ["the cat", "a", "the small house is", ""]
    together = json_lines_of(transloom("generate", llama, *prompts, "--json"))
    monkeypatch.setattr("transloom.inference.batch_size.TEXTS_AT_ONCE", 3)
    apart = json_lines_of(transloom("generate", llama, *prompts, "--json"))
    others = json_lines_of(transloom("generate", llama, "the cat", "no", "--json"))
    for found, expected in [*zip(apart, together, strict=True), (others[0], together[0])]:
        probability = found.pop("log_probability")
        assert probability == pytest.approx(expected["log_probability"], abs=1e-4)
        assert found == {k: v for k, v in expected.items() if k != "log_probability"}
    assert [text["prompt"] for text in together] == prompts


def test_generate_at_temperature_0_chooses_the_networks_best_tokens(transloom, llama):
    (found,) = json_lines_of(transloom("generate", llama, "the", "--temperature", 0, "--json"))
    generator = TextGenerator.load(llama)
    tokenizer = generator.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(["the"])[0].tolist()]
    made, log_probability = [], 0.0
    with torch.no_grad():
        while len(made) < 12 and (not made or made[-1] != tokenizer.eos_id):
            context = torch.tensor([ids + made])
            hidden = generator.network.hidden(context, torch.zeros_like(context))
            log_probabilities = generator.network.logits(hidden[0, -1]).log_softmax(0)
            made.append(int(log_probabilities.argmax()))
            log_probability += float(log_probabilities[made[-1]])
    ended = "eos" if made[-1] == tokenizer.eos_id else "length"
    texts = made[:-1] if ended == "eos" else made
    assert found == {
        "prompt": "the",
        "text": tokenizer.decode([texts])[0],
        "log_probability": pytest.approx(log_probability, abs=1e-4),
        "tokens": len(texts),
        "ended": ended,
    }


def test_a_text_ends_before_the_first_stop_string_in_it(transloom, llama):
    (whole,) = json_lines_of(transloom("generate", llama, "the", "--max-new-tokens", 40, "--json"))
    assert len(whole["text"]) > 5
    stop, later = whole["text"][3], whole["text"][4:6]
    (found,) = json_lines_of(
        transloom(
            "generate", llama, "the", "--max-new-tokens", 40, "--json",
            "--stop", later, "--stop", stop,
        )
    )  # fmt: skip
    assert found["ended"] == "stop"
    assert found["text"] == whole["text"][: whole["text"].index(stop)]


def test_generate_reads_prompts_from_standard_input(transloom, llama, monkeypatch):
    given = json_lines_of(transloom("generate", llama, "the cat", "", "a", "--json"))
    lines = TextIOWrapper(BytesIO(b"the cat\n\na\n"), encoding="latin-1")
    monkeypatch.setattr("sys.stdin", lines)
    from transloom.cli.generate import prompts_of

    assert prompts_of([]) == [text["prompt"] for text in given]


def test_a_prompt_longer_than_the_context_is_continued_from_its_end(transloom, runs):
    """The network reads the last 16 tokens of the prompt."""
    prompt = "the cat sees the house and the house sees the cat"
    folders = {name: found.folder / name for name, found in runs.items()}
    for folder in folders.values():
        (long,) = json_lines_of(transloom("generate", folder, prompt, "--temperature", 0, "--json"))
        assert long["prompt"] == prompt
        assert long["tokens"] > 0
        generator = TextGenerator.load(folder)
        other = generator.read_ids("another beginning " + prompt)
        assert generator.read_ids(prompt) == other
        assert len(other) == 16


def test_generate_limits_the_batch_size_by_the_length_of_prompts(llama, monkeypatch):
    generator = TextGenerator.load(llama)
    prompts = ["a", "the cat sees the house", "no"] * 3
    expected = generator.generate(prompts)
    monkeypatch.setattr("transloom.inference.batch_size.BYTES_OF_SCORES", 2 * 4 * 4 * 16**2)
    heads = generator.network.config.heads
    assert max_texts_per_batch([16, 3], generator.network, heads) == 2
    assert max_texts_per_batch([10**6], generator.network, heads) == 1
    assert [text.text for text in generator.generate(prompts)] == [text.text for text in expected]


def test_at_the_last_learned_position_a_text_continues_from_its_last_half(transloom, runs):
    run = runs["gpt2"].folder / "gpt2"
    options = ("--temperature", 0, "--max-new-tokens", 30, "--json")
    (found,) = json_lines_of(transloom("generate", run, "the cat sees", *options))
    generator = TextGenerator.load(run)
    context, made = generator.read_ids("the cat sees"), []
    with torch.no_grad():
        while len(made) < 30 and generator.tokenizer.eos_id not in made:
            context = context if len(context) <= 16 else context[-8:]
            given = torch.tensor([context])
            hidden = generator.network.hidden(given, torch.zeros_like(given))
            made.append(int(generator.network.logits(hidden[0, -1]).argmax()))
            context = [*context, made[-1]]
    ids = [token for token in made if token != generator.tokenizer.eos_id]
    assert len(ids) > 10
    assert found["text"] == generator.tokenizer.decode([ids])[0]
    assert found["ended"] == ("length" if len(ids) == 30 else "eos")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-p", "0"], r"top_p is 0\.0: .*greater than 0"),
        (["--stop", ""], r"stop\.0 is : .*at least 1"),
    ],
)
def test_generate_refuses_invalid_options(transloom, llama, options, message):
    with pytest.raises(RecipeError, match=message):
        transloom("generate", llama, "the", *options)


@pytest.mark.long
def test_evaluate_prints_the_scores_of_a_language_model_by_test_set(transloom, runs, llama):
    answer = json.loads(transloom("evaluate", llama, "--json").stdout)
    ((name, scores),) = answer.items()
    assert name == "phrasebook"
    assert list(scores) == ["loss", "perplexity", "byte_perplexity"]
    validation = runs["llama"].lines("llama", "validation")[-1]["scores"]
    assert scores["loss"] == pytest.approx(validation["loss"]["value"], rel=0.2)
    table = transloom("evaluate", llama, "--set", "phrasebook", "--checkpoint", 6).stdout
    assert "byte_perplexity" in table
    with pytest.raises(RunMismatchError, match=r"no test set other: .* phrasebook in data\.tests"):
        transloom("evaluate", llama, "--set", "other")


def test_transformers_generate_the_same_text_with_an_exported_model(transloom, run, tmp_path):
    answer = json.loads(transloom("export", run, tmp_path / "exported", "--json").stdout)
    assert answer["files"] == "config.json, model.safetensors, tokenizer.model"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    ours = TextGenerator.load(run)
    prompt = torch.tensor([ours.read_ids("the cat")])
    with torch.no_grad():
        expected = theirs(prompt).logits
        found = ours.network.logits(ours.network.hidden(prompt, torch.zeros_like(prompt)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for name in ("bos", "eos", "pad"):
        special = getattr(ours.tokenizer, f"{name}_id")
        assert getattr(theirs.config, f"{name}_token_id") == special
    continued = theirs.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :]
    ids = [token for token in continued.tolist() if token > ours.tokenizer.eos_id]
    (greedy,) = json_lines_of(
        transloom(
            "generate", run, "the cat", "--temperature", 0, "--max-new-tokens", 8, "--json"
        )
    )  # fmt: skip
    assert greedy["text"] == ours.tokenizer.decode([ids])[0]
    assert (tmp_path / "exported" / "tokenizer.model").read_bytes() == ours.tokenizer.model
    with pytest.raises(RunError):
        transloom("export", run, tmp_path / "exported")


@pytest.mark.long
def test_export_refuses_a_network_that_transformers_lack(transloom, runs, tmp_path):
    runs["llama"].train("sines", "model.positions=sinusoidal", "trainer.max_steps=1", inline=True)
    with pytest.raises(ModelError, match=r"GPT-2 has no positions=sinusoidal"):
        transloom("export", runs["llama"].folder / "sines", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.long
def test_generate_and_translate_refuse_each_others_runs(transloom, llama, inline_runs):
    with pytest.raises(
        RunMismatchError, match=r"for causal_lm, .*: use transloom generate for this run"
    ):
        transloom("translate", llama, "-")
    inline_runs.train("pairs", "trainer.max_steps=1", inline=True)
    pairs = inline_runs.folder / "pairs"
    with pytest.raises(RunMismatchError, match=r"for translation, .*: use transloom translate"):
        transloom("generate", pairs, "a")


def test_explain_writes_a_page_about_a_generated_text(transloom, run, tmp_path):
    file = tmp_path / "page.html"
    (said,) = json_lines_of(transloom("explain", run, "the", "--output", file, "--json"))
    assert said["steps"] == 12
    assert file.stat().st_size == said["bytes"]
    page = page_in_file(file)
    assert said["sections"] == len(page.sections)
    assert f"the{said['made']}" in page.sections[0].text
