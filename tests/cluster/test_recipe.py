"""Recipes: all shipped recipes, messages about mistakes, and the class of every field."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from support.quality.attributes_read import Sources
from support.recipes import tiny_values, write_yaml
from support.tasks import BUILT_IN

from cluster.errors import RecipeError
from cluster.packages import PACKAGES
from cluster.recipe import RECIPES, Recipe, find_recipe, load_recipe, run_name
from trainer.recipe import identity_of, leaves, recipe_class
from trainer.tasks.network import build_network

SHIPPED = sorted(RECIPES.glob("*.yaml"))
ROOT = Path(__file__).resolve().parents[2]


def test_the_recipes_are_those_that_the_readme_names():
    assert {path.stem for path in SHIPPED} == {
        "phrasebook",
        "multi30k-language",
        "multi30k-case",
        "multi30k-ende",
        "multi30k-en-defr",
        "multi30k-enfr",
        "multi30k-fren",
        "multi30k-embedding",
        "multi30k-masked",
        "multi30k-tlm",
        "shakespeare-char",
        "vaswani-base",
        "vaswani-big",
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_its_model_can_be_built(path):
    import torch

    recipe = load_recipe(path)
    size = recipe.tokenizer.vocabulary_size
    tokenizer = SimpleNamespace(vocabulary_size=size, pad_id=0, bos_id=2, eos_id=3)
    with torch.device("meta"):
        model = build_network(recipe, dict.fromkeys(("src", "tgt", "text"), tokenizer))
    parameters = sum(p.numel() for p in model.parameters())
    expected = {"vaswani-base": 63_000_000, "vaswani-big": 214_000_000}
    if path.stem in expected:  # table 3 of the paper: 65 and 213 million
        assert parameters == pytest.approx(expected[path.stem], rel=0.02)


def test_a_recipe_is_found_by_path_or_by_name(recipe_file, monkeypatch):
    assert find_recipe(str(recipe_file)) == recipe_file
    assert find_recipe("phrasebook") == RECIPES / "phrasebook.yaml"
    with pytest.raises(RecipeError, match=r"path of a recipe file.*multi30k-ende.*phrasebook"):
        find_recipe("phrasebok")
    with pytest.raises(RecipeError, match=r"'phrasebok' \(did you mean phrasebook\?\)"):
        find_recipe("phrasebok")
    misspelt = recipe_file.with_name("tinny.yaml")
    with pytest.raises(RecipeError, match=rf"did you mean {recipe_file}\?"):
        find_recipe(str(misspelt))
    for elsewhere in ("recipes/phrasebook.yaml", "recipes/phrasebok.yaml"):
        with pytest.raises(RecipeError, match=r"did you mean phrasebook\?"):
            find_recipe(str(recipe_file.parent / elsewhere))
    with pytest.raises(RecipeError, match="path of a recipe file") as caught:
        find_recipe("something-else-altogether")
    assert "did you mean" not in str(caught.value)
    monkeypatch.chdir(recipe_file.parent)
    with pytest.raises(RecipeError, match=rf"did you mean {recipe_file.name}\?"):
        find_recipe("tinny.yaml")
    with pytest.raises(RecipeError, match="no recipe ''"):
        find_recipe("")


def test_overrides_take_precedence_over_the_recipe_and_the_recipe_over_defaults(recipe_file):
    recipe = load_recipe(recipe_file, ["trainer.max_steps=7", "model.dropout=0.5"])
    assert recipe.trainer.max_steps == 7
    assert recipe.model.dropout == 0.5
    assert recipe.seed == 3  # from the recipe
    assert recipe.checkpoints.keep_last == 3  # the default


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_step=7", r"unknown key trainer\.max_step .*did you mean trainer\.max_steps"),
        ("modle.width=8", r"unknown key modle .*did you mean model"),
        ("dropout=0.5", r"unknown key dropout .*did you mean model\.dropout"),
        ("trainer.max_steps=many", r"trainer\.max_steps is 'many'"),
        ("trainer.max_steps=0", r"trainer\.max_steps is 0: .*greater than 0"),
        ("engine.zero_stage=4", r"engine\.zero_stage is 4"),
        ("trainer.max_steps", r"not of the form key=value"),
        ("trainer.max_steps.x=1", r"max_steps is a value, not a section"),
        ("seed=[1", r"not YAML"),
        ("seed=no", r"seed.* is false, expected a number"),
        ("trainer.early_stopping.patience=yes", r"is true, expected a number"),
        ("cluster.ranks=6", r"cluster\.ranks is 6, .* only 5 micro-batches.*at most 5"),
        ("engine={precision: bf16, zero_stage: 0}", r"bf16 and zero_stage is 0.*use zero_stage 1"),
        ("engine.verify_reductions=true", r"is true and numerics is 'fast'.* to false"),
        ("engine.verify_every_steps=9", r"verify_every_steps is 9 and numerics is 'fast'.* to 0"),
        ("model.heads=5", r"32, which model\.heads = 5 does not divide"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(recipe_file, override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, [override])


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", ".inf", "-.inf", ".nan"])
def test_a_value_that_is_not_finite_is_named_with_its_remedy(recipe_file, value):
    for key in ("trainer.gradient_clipping", "trainer.schedule.peak_learning_rate"):
        with pytest.raises(RecipeError, match=rf"{key} is '?-?(inf|nan)'?: .*a finite number"):
            load_recipe(recipe_file, [f"{key}={value}"])


def test_no_number_of_a_recipe_may_be_infinite_or_nan():
    floats = [
        (config, name, field)
        for config in sections_of_all_tasks()
        for name, field in config.model_fields.items()
        if takes(float, field.annotation)
    ]
    assert {"gradient_clipping", "peak_learning_rate", "betas", "min_score", "grace_seconds"} <= {
        name for _, name, _ in floats
    }
    for config, name, field in floats:
        for text in ("inf", "-inf", "nan"):
            for value in (float(text), text):
                given = [value] * 2 if takes(tuple, field.annotation) else value
                given = {"name": value} if takes(dict, field.annotation) else given
                with pytest.raises(ValidationError) as caught:
                    config.model_validate({name: given})
                complaints = [e for e in caught.value.errors() if e["loc"][0] == name]
                assert {e["type"] for e in complaints} == {"finite_number"}, (config, name, value)


def sections_of(config):
    """Return a config's class and the classes of its sections, at any depth."""
    inner = {part for field in config.model_fields.values() for part in parts(field.annotation)}
    sections = [p for p in inner if isinstance(p, type) and issubclass(p, BaseModel)]
    return {config}.union(*map(sections_of, sections))


def sections_of_all_tasks():
    return set().union(*(sections_of(recipe_class(Recipe, task)) for task in BUILT_IN))


def takes(kind, annotation):
    return any(kind in (part, get_origin(part)) for part in parts(annotation))


def parts(annotation):
    """Return a type and the types that it contains."""
    return [annotation, *(p for inner in get_args(annotation) for p in parts(inner))]


def test_the_length_of_quoted_values_is_bounded(recipe_file):
    with pytest.raises(RecipeError, match=r"characters\)") as caught:
        load_recipe(recipe_file, ["tracking.wandb=" + "x" * 50_000])
    assert len(str(caught.value)) < 2_000
    with pytest.raises(RecipeError, match=r"and 80 more$"):
        load_recipe(recipe_file, [f"trainer.betas{n}=1" for n in range(100)])


def test_a_file_that_is_not_a_recipe_is_refused_with_the_reason(tmp_path):
    for text, message in [
        ("a: [", "is not YAML"),
        ("- 1", "contains a list, expected sections such as `data:`"),
        ("", "contains nothing, expected sections"),
        ("word", "contains a single value, expected sections"),
        ("{}", "name is miss"),
        ("data:\n\tdataset: d", "line 2, column 1. Indent with spaces"),
        ("name: a\u2028b", r"line 1: .*U\+2028.* Remove it"),
        ("trainer.max_steps: 8", r"nest the key, as in trainer: \{max_steps: …\}"),
        ("trainer: {max_steps: 0100}", "0100 is 64 in YAML 1.1.*Write 64 or 100"),
        ("trainer: {max_steps: 1:30}", "1:30 is 90 in YAML 1.1.*Write 90"),
    ]:
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "absent.yaml")


def test_yaml_cannot_execute_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch executed']")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(path)


def test_only_changed_identity_fields_are_in_the_run_name(recipe_file):
    assert run_name(recipe_file, []) == "tiny"
    assert run_name(recipe_file, ["trainer.max_steps=9", "cluster.ranks=2"]) == "tiny"
    assert run_name(recipe_file, ["seed=4", "model.width=64"]) == "tiny,seed=4,model.width=64"


def test_every_field_has_a_change_class():
    for path in SHIPPED:
        recipe = load_recipe(path)
        classes = {name: change for name, _, change in leaves(recipe)}
        assert classes["seed"] == classes["model.width"] == "identity"
        assert classes["trainer.max_steps"] == classes["checkpoints.keep_last"] == "continuable"
        assert classes["cluster.ranks"] == classes["data.dataset"] == "execution"
        of_the_run = {name for name, change in classes.items() if change == "identity"}
        assert set(identity_of(recipe)) == of_the_run - {"callbacks"}  # callbacks have no guard


@pytest.mark.long
def test_every_field_is_read_by_something_other_than_its_config():
    """No field is a dead flag."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    files.remove(ROOT / "transloom/api.py")  # contains different classes with the same names
    sections = sections_of_all_tasks()
    configs = {Path(inspect.getfile(section)) for section in sections}
    reads = Sources(files, ROOT).reads(set(files) - configs)
    # A preset sets other fields when the recipe is read, and is not needed later.
    networks = (
        *("DecoderOnlyConfig", "EncoderOnlyConfig"),
        *("LabelTextsConfig", "LabelTokensConfig", "SentenceEncoderConfig"),
    )
    presets = [f"{network}.preset" for network in networks]
    assert sorted(unread(sections, reads)) == presets
    # Reads are recorded with the class of the field.
    assert ("Recipe", "name") in reads
    assert not {("TrackingConfig", "name"), ("TokenizerConfig", "name")} & reads


def unread(sections, reads):
    """Return the fields that are read neither through their class nor through its base classes."""
    return [
        f"{section.__name__}.{name}"
        for section in sections
        for name in section.model_fields
        if not any((owner.__name__, name) in reads for owner in section.__mro__)
    ]


CONFIG = """
from pydantic import BaseModel

class Inner(BaseModel):
    name: str
    type: str
    read_by_a_property: int

    @property
    def double(self) -> int:
        return 2 * self.read_by_a_property

class Outer(BaseModel):
    inner: tuple[Inner, ...] | None
    name: str
"""
READER = """
from pathlib import Path
from config import Inner, Outer

class Corpus:
    def __init__(self, file: Path, config: Outer) -> None:
        self.name, self.type = file.name, file.type
        self._config = config

    def names(self, other: "Corpus") -> list[str]:
        return [self.name, other._config.name, type(self).type] + [i.double for i in self.found]

    @property
    def found(self) -> tuple[Inner, ...]:
        return [inner for inner in self._config.inner if other(inner).name]
"""


def test_reading_a_field_does_not_count_for_a_field_of_the_same_name(tmp_path):
    config, reader = tmp_path / "config.py", tmp_path / "reader.py"
    config.write_text(CONFIG)
    reader.write_text(READER)
    reads = Sources([config, reader], tmp_path).reads([reader])
    assert {read for read in reads if read[0] in ("Inner", "Outer")} == {
        ("Outer", "inner"),
        ("Outer", "name"),
        ("Inner", "double"),
        ("Inner", "read_by_a_property"),
    }
    reader.write_text(READER.replace("i.double", "i.double + i.name"))
    assert ("Inner", "name") in Sources([config, reader], tmp_path).reads([reader])


def test_a_field_read_through_a_union_of_configs_counts_for_each_config(tmp_path):
    config, reader = tmp_path / "config.py", tmp_path / "reader.py"
    config.write_text(CONFIG + "\nEither = Inner | Outer\n")
    reader.write_text(
        "from config import Either\ndef name_of(config: Either) -> str:\n    return config.name\n"
    )
    assert Sources([config, reader], tmp_path).reads([reader]) == {
        ("Inner", "name"),
        ("Outer", "name"),
    }


@pytest.mark.parametrize(
    ("key", "word", "quoted"),
    [
        ("name", "no", '"no"'),
        ("name", "ON", '"yes"'),
        ("name", "", '"null"'),
        ("name", "2026-11-26", '"2026-11-26"'),
        ("name", "12", '"12"'),
        ("data.source_language", "no", '"no"'),
        ("data.train.0.columns.source", "no", '"no"'),
    ],
)
def test_text_that_yaml_reads_as_another_type_must_be_quoted(
    tmp_path: Path, key: str, word: str, quoted: str
) -> None:
    values = tiny_values(tmp_path)
    values["data"]["train"] = [{"files": ["a.tsv"], "columns": {"source": 0, "target": 1}}]
    path = write_yaml(tmp_path / "r.yaml", values)
    with pytest.raises(
        RecipeError, match=f"{key} is .*Without quotes, YAML reads.*quote.*{quoted}"
    ):
        load_recipe(path, [f"{key}={word}"])
    assert load_recipe(path, [f"name='{word or 'x'}'"]).name == (word or "x")
