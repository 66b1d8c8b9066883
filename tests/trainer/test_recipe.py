"""Recipes of all tasks: serialization, identity across versions, and errors in names."""

import pickle
import sys

import pytest
import ray.cloudpickle
from support.recipes import tiny_values, write_yaml
from support.tasks import (
    EXTENSIONS,
    case_values,
    copy_values,
    embedding_values,
    language_model_values,
    language_values,
    masked_values,
    pair_masked_values,
)

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from foundation import extensions
from foundation.extensions import FOLDER_VARIABLE
from run_store.errors import RunMismatchError
from trainer.recipe import TrainingRecipe, identity_differences, identity_of

VALUES = {
    "translation": tiny_values,
    "causal_lm": language_model_values,
    "masked_lm": masked_values,
    "sentence_embedding": embedding_values,
    "text_classification": language_values,
    "token_classification": case_values,
    "tlm": pair_masked_values,
    "copy": copy_values,
}


@pytest.fixture(params=list(VALUES))
def recipe(request, tmp_path):
    return Recipe.of(VALUES[request.param](tmp_path / "dataset"))


@pytest.fixture
def reading(tmp_path):
    """Return a function that loads the recipe of a task from a file, with overrides."""

    def read(task, *overrides):
        path = write_yaml(tmp_path / f"{task}.yaml", VALUES[task](tmp_path / "dataset"))
        return load_recipe(path, overrides)

    return read


@pytest.mark.parametrize("pickler", [pickle, ray.cloudpickle], ids=["pickle", "cloudpickle"])
def test_a_recipe_is_equal_after_pickling(recipe, pickler):
    for sent in (recipe, recipe.training(), recipe.data_settings):
        back = pickle.loads(pickler.dumps(sent))  # noqa: S301
        assert back == sent
        assert type(back) is type(sent)


def test_a_recipe_restored_from_a_checkpoint_is_equal(recipe, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(EXTENSIONS))
    training = recipe.training()
    back = TrainingRecipe.of_checkpoint(training.model_dump(mode="json"), identity_of(training))
    assert back.model_copy(update={"extension_folder": recipe.extension_folder}) == training
    assert identity_differences(identity_of(back), identity_of(recipe)) == []


def test_ranks_get_the_recipe_without_its_cluster_section(recipe):
    training = recipe.training()
    assert identity_of(training) == identity_of(recipe)
    assert training.model_dump() == recipe.model_dump(exclude={"cluster"})
    assert type(TrainingRecipe.of(training.model_dump(mode="json"))) is type(training)


def test_the_identity_contains_the_hashes_of_extensions(tmp_path):
    found = identity_of(Recipe.of(copy_values(tmp_path)))
    assert found["extensions"] == ["copy_task"]
    assert found["extensions.copy_task"] == str(extensions._loaded["copy_task"])
    other = found | {"extensions.copy_task": "0 sha256:0"}
    assert identity_differences(other, found) == [
        f"extensions.copy_task: '0 sha256:0' there, {found['extensions.copy_task']!r} here"
    ]


def test_a_run_older_than_the_task_setting_keeps_its_identity(tmp_path):
    now = identity_of(Recipe.of(tiny_values(tmp_path)))
    new = {
        *("task", "extensions", "model.network", "trainer.loss", "trainer.loss_options"),
        *("trainer.optimizer.type", "trainer.optimizer.options", "trainer.schedule.options"),
        "trainer.frozen",
        *("tokenizer.byte_fallback", "tokenizer.verbatim"),
    }
    before = {name: value for name, value in now.items() if name not in new}
    assert len(before) == len(now) - len(new)
    assert identity_differences(before, now) == []
    assert identity_differences(now, before) == []


def test_runs_of_different_tasks_differ_in_their_task(tmp_path):
    ours, theirs = (identity_of(Recipe.of(VALUES[t](tmp_path))) for t in ("translation", "copy"))
    assert "task: 'copy' there, 'translation' here" in identity_differences(theirs, ours)


@pytest.mark.parametrize("changed", [{"model.network": "gone"}, {"task": "gone"}])
def test_a_run_with_an_unregistered_network_or_task_differs(tmp_path, changed):
    """The extensions of the other run are not loaded to describe the difference."""
    now = identity_of(Recipe.of(tiny_values(tmp_path)))
    then = {name: value for name, value in now.items() if name != "model.heads"} | changed
    assert any("'gone' there" in line for line in identity_differences(then, now))


@pytest.mark.parametrize(
    ("task", "override", "message"),
    [
        (
            "translation",
            "task=sorting",
            r"task is 'sorting', .*Choose one of translation, causal_lm",
        ),
        (
            "causal_lm",
            "model.network=tree",
            r"model\.network is 'tree', .*transformer, decoder_only",
        ),
        ("causal_lm", "trainer.loss=hinge", r"trainer\.loss.*'hinge'.*Choose one of cross_entropy"),
        ("copy", "trainer.schedule.type=wave", r"'wave', .* Choose one of paper"),
        ("copy", "trainer.optimizer.type=sgd", r"'sgd', .* Choose one of adamw"),
        ("translation", "trainer.validation_scores=[ter]", r"trainer\.validation_scores is 'ter'"),
        ("copy", "trainer.validation_scores=[ter]", r"validation of copy generates no texts"),
        (
            "causal_lm",
            "checkpoints.best_by=bleu",
            r"checkpoints\.best_by is 'bleu', .* causal_lm are loss, perplexity, byte_perplexity",
        ),
        (
            "causal_lm",
            "trainer.early_stopping={metric: accuracy}",
            r"trainer\.early_stopping\.metric is 'accuracy'",
        ),
        (
            "sentence_embedding",
            "data.max_source_length=24",
            r"context_length is 24, but .*max_source_length 24 .* tokens has 25 with BOS",
        ),
        (
            "sentence_embedding",
            "batching.pairs_per_micro_batch=289",
            r"pairs_per_micro_batch is 289 and max_tokens_per_micro_batch is 288",
        ),
        ("sentence_embedding", "tokenizer.joint=false", r"tokenizer\.joint is false, but one enc"),
        ("sentence_embedding", "tokenizer.sampling.alpha=0.1", r"sampling\.alpha is 0\.1, but"),
        ("sentence_embedding", "data.validation.tag=<2de>", r"data\.validation\.tag is '<2de>'"),
        ("translation", "tokenizer.joint=false", r"share_embeddings is 'all' and tok"),
        ("tlm", "model.segments=1", r"model\.segments is 1, but tlm .* set model\.segments to 2"),
        ("tlm", "tokenizer.joint=false", r"tokenizer\.joint is false, but tlm has both languages"),
        (
            "tlm",
            "data.validation.tag=<2en>",
            r"data\.validation\.tag is '<2en>', but tlm .* by segments: remove",
        ),
    ],
)
def test_an_invalid_name_is_reported_with_the_valid_names(reading, task, override, message):
    with pytest.raises(RecipeError, match=message):
        reading(task, override)


def test_best_by_must_be_a_score_of_the_task(reading):
    assert reading("copy").checkpoints.best_by == "accuracy"
    assert reading("causal_lm", "checkpoints.best_by=byte_perplexity").kind.scores
    with pytest.raises(RecipeError, match=r"'accuracy', .* translation are loss, perplexity, bleu"):
        reading("translation", "checkpoints.best_by=accuracy")


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """Return a checkpoint's recipe and identity, and the folder that has its extension."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "ext_of_checkpoint.py").write_text("imported = True\n")
    values = tiny_values(tmp_path / "dataset")
    values |= {"extensions": ["ext_of_checkpoint"], "extension_folder": str(folder)}
    training = Recipe.of(values).training()
    yield training.model_dump(mode="json"), identity_of(training), folder
    sys.modules.pop("ext_of_checkpoint", None)
    extensions._loaded.pop("ext_of_checkpoint", None)


def as_in_another_process():
    del sys.modules["ext_of_checkpoint"], extensions._loaded["ext_of_checkpoint"]
    sys.path[:] = [path for path in sys.path if not path.endswith("foreign")]


def test_the_extension_folder_named_in_a_checkpoint_is_not_used(foreign, monkeypatch):
    values, identity, folder = foreign
    as_in_another_process()
    assert values["extension_folder"] == str(folder)
    with pytest.raises(RunMismatchError, match=r"ext_of_checkpoint is not found in the installed"):
        TrainingRecipe.of_checkpoint(values, identity)
    assert "ext_of_checkpoint" not in sys.modules
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    recipe = TrainingRecipe.of_checkpoint(values, identity)
    assert recipe.extension_folder is None
    assert sys.modules["ext_of_checkpoint"].imported


def test_an_extension_that_differs_from_the_checkpoints_is_not_imported(foreign, monkeypatch):
    values, identity, folder = foreign
    as_in_another_process()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    (folder / "ext_of_checkpoint.py").write_text("raise SystemExit('it was imported')\n")
    with pytest.raises(
        RunMismatchError, match=r"ext_of_checkpoint is 0 sha256:.* on this machine, but 0 sha"
    ):
        TrainingRecipe.of_checkpoint(values, identity)


@pytest.mark.parametrize("names", ["copy_task", 5, [5], {"a": 1}])
def test_a_checkpoint_with_an_invalid_list_of_extensions_is_refused(tmp_path, names):
    training = Recipe.of(tiny_values(tmp_path)).training()
    values = training.model_dump(mode="json") | {"extensions": names}
    with pytest.raises(RunMismatchError, match=r"recipe has extensions"):
        TrainingRecipe.of_checkpoint(values, identity_of(training))


def test_probe_sentences_require_a_traceable_network_and_are_few_and_distinct(reading):
    sentences = 'tracking.probe_sentences=["je suis"]'
    assert reading("translation", sentences).tracking.probe_sentences == ("je suis",)
    with pytest.raises(RecipeError, match="causal_lm with the network decoder_only does not"):
        reading("causal_lm", sentences)
    with pytest.raises(RecipeError, match="5 probe sentences, at most 4 are allowed"):
        reading("translation", "tracking.probe_sentences=[a, b, c, d, e]")
    with pytest.raises(RecipeError, match="a sentence is repeated"):
        reading("translation", "tracking.probe_sentences=[a, a]")
