"""`transloom init`: recipes for corpora of all sizes, with a validation set without leaks."""

import gzip
import json
import shlex
from pathlib import Path

import pytest

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import CorpusError
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.storage.store import open_store
from transloom.cli.corpus_files import files_in
from transloom.cli.recipe_scales import scale_of


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Write 500 pairs, some repeated, to corpus.fr and corpus.en; return the current folder."""
    monkeypatch.chdir(tmp_path)
    numbers = [number % 180 for number in range(500)]
    Path("corpus.fr").write_text("".join(f"phrase numéro {n}\n" for n in numbers))
    Path("corpus.en").write_text("".join(f"sentence number {n}\n" for n in numbers))
    return tmp_path


def pairs(folder, use):
    sides = [(folder / f"{use}.{language}").read_text().splitlines() for language in ("fr", "en")]
    return list(zip(*sides, strict=True))


def test_init_splits_a_corpus_without_a_source_in_both_sets(transloom, corpus):
    command = ["init", "my.yaml", "--source", "corpus.fr", "--target", "corpus.en"]
    summary = json.loads(transloom(*command, "--json").stdout)
    train, held = pairs(Path("my-corpus"), "train"), pairs(Path("my-corpus"), "validation")
    assert (len(train), len(held)) == (summary["pairs"], summary["held_out"])
    assert len(train) + len(held) == 500
    assert len(held) > 5
    assert not {source for source, _ in train} & {source for source, _ in held}
    assert all(f.split()[-1] == e.split()[-1] for f, e in train + held)  # sides are aligned
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.name == "my"
    assert recipe.data.source_language == "fr"
    assert recipe.data.train[0].locations == ("my-corpus/train.fr", "my-corpus/train.en")


FRENCH, ENGLISH = "phrase numéro {}", "sentence number {}"
IN_COLUMNS = f"{FRENCH}\t{ENGLISH}\n"
IN_KEYS = f'{{{{"fr": "{FRENCH}", "en": "{ENGLISH}"}}}}'
PAIR_FILES = {  # the beginning of each file, and its later lines
    "pairs.tsv": ("", IN_COLUMNS),
    "pairs.fr-en.tsv": ("", IN_COLUMNS),
    "head.tsv": ("fr\ten\n", IN_COLUMNS),
    "byte-order-mark.tsv": ("\ufefffr\ten\n", IN_COLUMNS),
    "ids.fr-en.tsv": ("id\tfr\ten\n", f"{{}}\t{IN_COLUMNS}"),
    "crossed.tsv": ("en\tfr\n", f"{ENGLISH}\t{FRENCH}\n"),
    "pairs.jsonl": ("", f"{IN_KEYS}\n"),
    "byte-order-mark.jsonl": ("\ufeff", f"{IN_KEYS}\n"),
    "nested.jsonl": ("", f'{{{{"translation": {IN_KEYS}}}}}\n'),
    "more.fr-en.jsonl": (
        "",
        f'{{{{"id": "{{}}", "source": "{FRENCH}", "target": "{ENGLISH}"}}}}\n',
    ),
}


@pytest.mark.parametrize("name", PAIR_FILES)
def test_init_guesses_the_columns_of_a_file_of_pairs(transloom, corpus, name):
    (head, line), is_named = PAIR_FILES[name], name in ("pairs.tsv", "crossed.tsv")
    options = ["--source-language", "fr", "--target-language", "en"] if is_named else []
    count = line.count("{}")
    lines = [line.format(*[n % 180] * count) for n in range(500)]
    Path(name).write_text(head + "".join(lines))
    for recipe, more in (("my.yaml", [name]), ("same.yaml", ["--source", name, "--target", name])):
        answer = transloom("init", recipe, *more, *options)
        assert "is the source (fr)" in answer.stdout.replace("\n", " ")
        folder = Path(recipe.replace(".yaml", "-corpus"))
        both = pairs(folder, "train") + pairs(folder, "validation")
        assert sorted(both) == sorted(
            (FRENCH.format(n % 180), ENGLISH.format(n % 180)) for n in range(500)
        )
        assert load_recipe(Path(recipe)).data.target_language == "en"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "un chat\ta cat\n", "does not show its languages.*--source-language"),
        ("a.fr-en.tsv", "un one\n", "line 1 has no tab"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"a": "x", "b": "y", "c": "z"}\n', "under a, b, c.*--source-language"),
        ("a.jsonl", '{"source": "x", "target": "y"}\n', "does not show its languages"),
    ],
)
def test_init_refuses_a_file_with_unclear_columns(transloom, corpus, name, text, message):
    Path(name).write_text(text)
    with pytest.raises(RecipeError, match=message):
        transloom("init", "my.yaml", name)
    assert not Path("my.yaml").exists()


def test_init_does_not_overwrite_a_recipe_or_corpus_folder(transloom, corpus):
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


def test_init_uses_a_given_validation_set(transloom, corpus):
    Path("dev.fr").write_text("un\n")
    Path("dev.en").write_text("one\n")
    given = ["--validation-source", "dev.fr", "--validation-target", "dev.en"]
    transloom("init", "my.yaml", "--source", "corpus.fr", "--target", "corpus.en", *given)
    assert not Path("my-corpus").exists()
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.data.validation.locations == ("dev.fr", "dev.en")
    assert recipe.data.train[0].locations == ("corpus.fr", "corpus.en")


def test_init_derives_uses_and_languages_from_file_names_in_a_folder(transloom, corpus):
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
def test_init_assigns_two_files_of_a_folder_to_the_languages(
    transloom, corpus, french, english, given
):
    """A language code, or src, tgt, source or target in a name identifies the side."""
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


def test_init_refuses_two_files_whose_names_do_not_identify_their_sides(corpus):
    folder = Path("folder")
    folder.mkdir()
    (folder / "a.txt").touch()
    (folder / "b.txt").touch()
    first, second = folder / "a.txt", folder / "b.txt"
    with pytest.raises(RecipeError, match=f"source.*--source {first} --target {second}"):
        files_in(folder, ("fr", "en"))


def test_init_reports_that_a_folder_does_not_exist(tmp_path):
    with pytest.raises(RecipeError, match=f"no folder {tmp_path / 'nowhere'}"):
        files_in(tmp_path / "nowhere", ("fr", "en"))


def test_init_requires_options_to_choose_two_of_several_languages(corpus):
    folder = Path("folder")
    folder.mkdir()
    for language in ("de", "en", "fr"):
        (folder / f"train.{language}").touch()
    given = "--source-language de --target-language en"
    with pytest.raises(RecipeError, match=f"de, en, fr.*{given}"):
        files_in(folder, (None, None))


@pytest.mark.parametrize("languages", [(None, None), ("fr", None), (None, "fr")])
def test_init_does_not_use_an_unrelated_file_as_the_missing_side(corpus, languages):
    folder = Path("folder")
    folder.mkdir()
    (folder / "train.fr").touch()
    (folder / "README.md").touch()
    with pytest.raises(RecipeError, match=r"found: README\.md, train\.fr"):
        files_in(folder, languages)


def test_init_reports_missing_unequal_and_unpaired_files(transloom, corpus):
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
def test_settings_for_every_corpus_size_are_consistent(count):
    scale = scale_of(count, target_characters=60 * count)
    assert scale.width % scale.heads == 0
    assert scale.longest <= scale.micro_batch
    assert scale.warm_up < scale.steps
    assert scale.every < scale.steps
    assert scale_of(10 * count, 600 * count).vocabulary >= scale.vocabulary


INIT = ("init", "my.yaml", "--source", "corpus.fr", "--target", "corpus.en")


@pytest.mark.parametrize(
    "language", ["no", "on", "null", "1", "2026-11-26", "a: b # c", "é'\n\"", "{x}"]
)
def test_init_quotes_language_codes_where_yaml_requires_quotes(transloom, corpus, language):
    transloom(*INIT, "--source-language", language, "--target-language", "y")
    data = load_recipe(Path("my.yaml")).data
    assert (data.source_language, data.target_language) == (language, "y")


@pytest.mark.matrix
@pytest.mark.parametrize(
    "stem", ["no", "12", "1e3", "2026-11-26", "my recipe  # 1", "{x}", "it's", "å\n"]
)
def test_init_quotes_unusual_file_names(transloom, corpus, stem):
    for language in ("fr", "en"):
        Path(f"corpus.{language}").rename(f"{stem}.{language}")
    command = ["init", f"{stem}.yaml", "--source", f"{stem}.fr", "--target", f"{stem}.en"]
    result = transloom(*command)
    recipe = load_recipe(Path(f"{stem}.yaml"))
    assert recipe.data.train[0].source == f"{stem}-corpus/train.fr"
    assert shlex.quote(f"{stem}.yaml") in result.stdout
    transloom(
        "init",
        "second.yaml",
        *command[2:],
        "--validation-source",
        f"{stem}.fr",
        "--validation-target",
        f"{stem}.en",
    )
    assert load_recipe(Path("second.yaml")).data.validation.target == f"{stem}.en"


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda: Path("corpus.en").write_text("one\n"), CorpusError),
        (lambda: Path("corpus.en").write_bytes(b"\xff\n" * 500), CorpusError),
        (lambda: Path("corpus.fr").write_text("same\n" * 500), RecipeError),
        (lambda: Path("corpus.en").unlink(), CorpusError),
    ],
)
def test_a_failed_init_leaves_no_files_and_can_be_repeated(transloom, corpus, break_it, error):
    good = {name: Path(name).read_bytes() for name in ("corpus.fr", "corpus.en")}
    break_it()
    before = sorted(corpus.iterdir())
    with pytest.raises(error):
        transloom(*INIT)
    assert sorted(corpus.iterdir()) == before
    for name, data in good.items():
        Path(name).write_bytes(data)
    transloom(*INIT)
    assert load_recipe(Path("my.yaml")).name == "my"


@pytest.mark.parametrize("step", ["load_recipe", "_recipe_text", "_publish"])
def test_an_interrupted_init_leaves_no_files(transloom, corpus, monkeypatch, step):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"transloom.cli.new_recipe.{step}", interrupted)
    before = sorted(corpus.iterdir())
    assert transloom(*INIT).exit_code
    assert sorted(corpus.iterdir()) == before


def test_init_removes_the_split_if_the_recipe_cannot_be_moved(transloom, corpus, monkeypatch):
    rename = Path.rename

    def fail_for_recipes(path, target):
        if path.suffix == ".yaml":
            raise PermissionError(13, "Permission denied", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_recipes)
    before = sorted(corpus.iterdir())
    with pytest.raises(PermissionError):
        transloom(*INIT)
    assert sorted(corpus.iterdir()) == before


def test_init_refuses_a_corpus_with_a_single_distinct_source(transloom, corpus):
    Path("corpus.fr").write_text("same\n" * 50)
    Path("corpus.en").write_text("".join(f"{n}\n" for n in range(50)))
    with pytest.raises(
        RecipeError, match=r"50 pairs and only one different source.*--validation-so"
    ):
        transloom(*INIT)


@pytest.mark.parametrize("use", ["train", "validation"])
def test_init_can_split_a_set_that_init_wrote(transloom, corpus, use):
    transloom(*INIT)
    sides = [f"my-corpus/{use}.{language}" for language in ("fr", "en")]
    command = ["init", "again.yaml", "--source", sides[0], "--target", sides[1], "--json"]
    summary = json.loads(transloom(*command).stdout)
    assert summary["held_out"] > 0
    assert summary["pairs"] > summary["held_out"]
    assert summary["pairs"] + summary["held_out"] == len(pairs(Path("my-corpus"), use))


def test_init_says_that_hugging_face_requires_post_norm(transloom, corpus):
    result = transloom(*INIT)
    assert load_recipe(Path("my.yaml")).model.norm == "pre"
    assert "For Hugging Face, set model.norm to post" in result.stdout


def test_init_holds_out_about_five_percent(transloom, corpus):
    summary = json.loads(transloom(*INIT, "--json").stdout)
    assert 20 <= summary["held_out"] <= 25


def test_the_error_for_a_missing_file_does_not_blame_the_recipe(transloom, corpus):
    command = ["init", "my.yaml", "--source", "corpus.fr", "--target", "nowhere.en"]
    with pytest.raises(CorpusError) as found:
        transloom(*command)
    assert "recipe" not in str(found.value)


WORDS = {
    "few words": [f"{a} {b}" for a in ("red", "blue", "old") for b in ("cat", "dog", "tree")] * 40,
    "one letter": ["a", "b", "a b"] * 50,
    "codes": [f"x{n % 7}y{n % 5}" for n in range(300)],
    "many characters": [
        "".join(chr(0x4E00 + (n * 37 + k * 101) % 1500) for k in range(9)) for n in range(900)
    ],
}


@pytest.mark.parametrize("name", WORDS)
def test_init_chooses_a_vocabulary_size_that_unusual_text_can_fill(transloom, corpus, name):
    text = "".join(f"{line} {n % 3}\n" for n, line in enumerate(WORDS[name]))
    for language in ("fr", "en"):
        Path(f"corpus.{language}").write_text(text)
    transloom(*INIT)
    transloom("prepare", "my.yaml")
    assert Path("datasets/my/manifest.json").is_file()


@pytest.mark.parametrize(("words", "longest"), [(10, 64), (100, 256)])
def test_init_chooses_a_maximum_length_that_keeps_most_pairs(transloom, corpus, words, longest):
    for language in ("fr", "en"):
        lines = (f"{n} " + " ".join(f"w{(n * k) % 70}" for k in range(words)) for n in range(600))
        Path(f"corpus.{language}").write_text("".join(f"{line}\n" for line in lines))
    transloom(*INIT)
    recipe = load_recipe(Path("my.yaml"))
    assert recipe.data.max_source_length == longest
    assert recipe.batching.max_tokens_per_micro_batch >= longest
    transloom("prepare", "my.yaml")
    manifest = Manifest.load(open_store("datasets/my"))
    assert sum(shard.pairs for shard in manifest.shards) > 500


def test_init_does_not_hold_out_very_long_sentences(transloom, corpus):
    for language in ("fr", "en"):
        lines = (f"{n} " * (1 if n < 40 else 600) for n in range(300))
        Path(f"corpus.{language}").write_text("".join(f"{line}\n" for line in lines))
    transloom(*INIT)
    held = pairs(Path("my-corpus"), "validation")
    assert held
    assert all(len(side) < 1000 for pair in held for side in pair)


def test_init_chooses_the_vocabulary_of_ordinary_text_by_its_size(transloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side, language in enumerate(("fr", "en")):
        lines = [pair[side] for pair in phrasebook_pairs("train")][:2000]
        Path(f"corpus.{language}").write_text("".join(f"{line}\n" for line in lines))
    summary = json.loads(transloom(*INIT, "--json").stdout)
    scale = scale_of(summary["pairs"], 1)
    assert scale.vocabulary == 500
    assert load_recipe(Path("my.yaml")).tokenizer.vocabulary_size == scale.vocabulary


def test_init_reads_carriage_returns_as_line_ends_and_reports_them(transloom, corpus):
    for language in ("fr", "en"):
        path = Path(f"corpus.{language}")
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    result = transloom(*INIT)
    assert "corpus.fr, corpus.en end at carriage returns" in result.stdout
    assert len(pairs(Path("my-corpus"), "train")) > 400


def test_init_gives_test_sets_names_that_recipes_allow(transloom, corpus):
    folder = Path("folder")
    folder.mkdir()
    for use in ("train", "test 1", "Thumbs"):
        for language in ("fr", "en"):
            (folder / f"{use}.{language}").write_bytes(Path(f"corpus.{language}").read_bytes())
    transloom("init", "my.yaml", folder, "--source-language", "fr")
    assert load_recipe(Path("my.yaml")).data.tests["test-1"].source == "folder/test 1.fr"
