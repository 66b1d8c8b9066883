"""`transloom init`: recipes of corpora of all sizes, and a validation set without leaks."""

import gzip
import json
from pathlib import Path

import pytest

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.errors import CorpusError
from transloom.cli.new_recipe import files_in
from transloom.cli.recipe_scales import scale_of


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """500 pairs of which some come several times, in corpus.fr and corpus.en."""
    monkeypatch.chdir(tmp_path)
    numbers = [number % 180 for number in range(500)]
    Path("corpus.fr").write_text("".join(f"phrase numéro {n}\n" for n in numbers))
    Path("corpus.en").write_text("".join(f"sentence number {n}\n" for n in numbers))
    return tmp_path


def pairs(folder, use):
    sides = [(folder / f"{use}.{language}").read_text().splitlines() for language in ("fr", "en")]
    return list(zip(*sides, strict=True))


def test_the_corpus_is_dealt_without_a_leak(transloom, corpus):
    command = ["init", "my.yaml", "--source", "corpus.fr", "--target", "corpus.en"]
    summary = json.loads(transloom(*command, "--json").stdout)
    train, held = pairs(Path("my-corpus"), "train"), pairs(Path("my-corpus"), "validation")
    assert (len(train), len(held)) == (summary["pairs"], summary["held_out"])
    assert len(train) + len(held) == 500
    assert len(held) > 5
    assert not {source for source, _ in train} & {source for source, _ in held}
    assert all(f.split()[-1] == e.split()[-1] for f, e in train + held)  # still aligned
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.name == "my"
    assert recipe.data.source_language == "fr"
    assert recipe.data.train[0].locations == ("my-corpus/train.fr", "my-corpus/train.en")


def test_nothing_is_overwritten(transloom, corpus):
    command = ["init", "my.yaml", "--source", "corpus.fr", "--target", "corpus.en"]
    transloom(*command)
    before = Path("my.yaml").read_text()
    with pytest.raises(RecipeError, match=r"my\.yaml already exists"):
        transloom(*command)
    Path("my.yaml").unlink()
    with pytest.raises(RecipeError, match="my-corpus already exists"):
        transloom(*command)
    assert not Path("my.yaml").exists()
    assert before


def test_a_validation_set_that_is_given_is_used(transloom, corpus):
    Path("dev.fr").write_text("un\n")
    Path("dev.en").write_text("one\n")
    given = ["--validation-source", "dev.fr", "--validation-target", "dev.en"]
    transloom("init", "my.yaml", "--source", "corpus.fr", "--target", "corpus.en", *given)
    assert not Path("my-corpus").exists()
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.data.validation.locations == ("dev.fr", "dev.en")
    assert recipe.data.train[0].locations == ("corpus.fr", "corpus.en")


def test_a_folder_is_understood_by_its_names(transloom, corpus):
    folder = Path("it's mine")
    folder.mkdir()
    for use in ("train", "valid", "test_a", "test_b"):
        for language in ("en", "fr"):
            text = Path(f"corpus.{language}").read_bytes()
            (folder / f"{use}.{language}.gz").write_bytes(gzip.compress(text))
    (folder / "README.md").touch()
    transloom("init", "my.yaml", folder, "--source-language", "fr")
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.data.source_language == "fr"
    assert recipe.data.train[0].source == "it's mine/train.fr.gz"
    assert recipe.data.validation.target == "it's mine/valid.en.gz"
    assert sorted(recipe.data.tests) == ["test_a", "test_b"]
    assert files_in(folder, (None, None)).languages == ("en", "fr")


@pytest.mark.parametrize(
    ("french", "english", "given"),
    [
        ("corpus.fr", "corpus.en", ("fr", "en")),
        ("corpus.fr", "corpus.en", ("fr", None)),
        ("corpus.fr.txt", "corpus.en.txt", ("fr", "en")),
        ("Mine-FR.text", "mine.src-en", ("fr", "en")),
        ("train.src", "train.tgt", ("fr", "en")),
        ("a_target.txt", "b_source.txt", ("en", "fr")),
    ],
)
def test_a_folder_of_two_files_needs_no_more_than_the_languages(
    transloom, corpus, french, english, given
):
    """Whatever the files are called, as long as the names tell one side from the other."""
    folder = Path("folder")
    folder.mkdir()
    for name, language in ((french, "fr"), (english, "en")):
        (folder / name).write_bytes(Path(f"corpus.{language}").read_bytes())
    (folder / ".hidden").touch()
    options = zip(("--source-language", "--target-language"), given, strict=True)
    transloom("init", "my.yaml", folder, *(x for pair in options if pair[1] for x in pair))
    recipe = load_recipe(Path("my.yaml"))
    assert (recipe.data.source_language, recipe.data.target_language) in (("fr", "en"), given)
    assert pairs(Path("my-corpus"), "validation")
    assert Path("my-corpus/train.fr").read_text().startswith("phrase")
    assert Path("my-corpus/train.en").read_text().startswith("sentence")


def test_two_files_that_no_name_tells_apart_are_named_in_the_refusal(corpus):
    folder = Path("folder")
    folder.mkdir()
    (folder / "a.txt").touch()
    (folder / "b.txt").touch()
    first, second = folder / "a.txt", folder / "b.txt"
    with pytest.raises(RecipeError, match=f"source.*--source {first} --target {second}"):
        files_in(folder, ("fr", "en"))


def test_a_folder_that_is_not_there_is_not_called_empty(tmp_path):
    with pytest.raises(RecipeError, match=f"no folder {tmp_path / 'nowhere'}"):
        files_in(tmp_path / "nowhere", ("fr", "en"))


def test_of_more_than_two_languages_two_are_chosen_by_options(corpus):
    folder = Path("folder")
    folder.mkdir()
    for language in ("de", "en", "fr"):
        (folder / f"train.{language}").touch()
    given = "--source-language de --target-language en"
    with pytest.raises(RecipeError, match=f"de, en, fr.*{given}"):
        files_in(folder, (None, None))


@pytest.mark.parametrize("languages", [(None, None), ("fr", None), (None, "fr")])
def test_a_file_beside_a_single_side_is_not_taken_for_the_other(corpus, languages):
    folder = Path("folder")
    folder.mkdir()
    (folder / "train.fr").touch()
    (folder / "README.md").touch()
    with pytest.raises(RecipeError, match=r"found: README\.md, train\.fr"):
        files_in(folder, languages)


def test_files_that_cannot_be_understood_are_told(transloom, corpus):
    Path("a.txt").write_text("un\n")
    with pytest.raises(RecipeError, match="--source-language fr --target-language en"):
        transloom("init", "my.yaml", "--source", "corpus.fr", "--target", "other.fr")
    with pytest.raises(RecipeError, match=r"two files named train\.LANGUAGE"):
        transloom("init", "my.yaml", ".")
    with pytest.raises(CorpusError, match="nowhere"):
        transloom("init", "my.yaml", "--source", "nowhere.fr", "--target", "corpus.en")
    Path("short.en").write_text("one\n")
    with pytest.raises(CorpusError, match=r"500.*1|1.*500"):
        transloom("init", "my.yaml", "--source", "corpus.fr", "--target", "short.en")
    assert transloom("init", "my.yaml").exit_code == 2
    assert not Path("my.yaml").exists()


@pytest.mark.parametrize("count", [200, 4_999, 29_000, 400_000, 4_500_000, 40_000_000])
def test_every_size_gets_settings_that_fit_together(count):
    scale = scale_of(count, target_characters=60 * count)
    assert scale.width % scale.heads == 0
    assert scale.longest <= scale.micro_batch
    assert scale.warm_up < scale.steps
    assert scale.every < scale.steps
    assert scale_of(10 * count, 600 * count).vocabulary >= scale.vocabulary
