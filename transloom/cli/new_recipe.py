"""Work of `transloom init`: write a recipe for a user's corpus, with settings that suit its size.

    FILES ──read once──▶ pairs, characters ──▶ a scale ──▶ RECIPE, with a comment for each choice
      └── no validation set given ──▶ STEM-corpus/{train,validation}.{SOURCE,TARGET}

The source sentence alone determines whether a pair is held out. Pairs with equal source sentences
therefore stay together, and no source sentence is both trained on and scored.
"""

import hashlib
import math
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.config.corpus import name_suffix
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.corpora.corpus import CorpusReader
from data_pipeline.corpora.formats import parse
from data_pipeline.storage.locations import cache_folder
from foundation.location import Location
from foundation.wording import counted, join_items
from transloom.cli.model_sections import ModelSections, own_sections, quoted, sections_of
from transloom.cli.recipe_scales import Scale, scale_of, tuning_scale
from transloom.cli.recipe_template import TEMPLATE

PAIRS_PER_CHUNK = 4096
MAX_HELD_OUT = 1000
HELD_OUT_SHARE = 0.05
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
COMMENT_COLUMN = 40
NAMES_SHOWN = 8
_COMMENT = re.compile(r"^( *[^#\s].*?) {2,}# ", re.MULTILINE)  # a comment after a value
# Words that mark the source and the target in file names without languages.
SIDES = ({"source", "src"}, {"target", "tgt", "trg"})
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z]+)?")


@dataclass(frozen=True)
class Files:
    """Files of a corpus, in pairs of a source file and a target file that are aligned by line.

    Attributes:
        tests: test sets by name.
        languages: source and target language.
    """

    train: tuple[Path, Path]
    validation: tuple[Path, Path] | None
    tests: dict[str, tuple[Path, Path]]
    languages: tuple[str, str]


@dataclass(frozen=True)
class Counts:
    """Numbers of pairs and target characters in the training files."""

    pairs: int
    held_out: int
    target_characters: int


def files_named(
    source: Path,
    target: Path,
    validation: tuple[Path, Path] | None,
    languages: tuple[str | None, str | None],
) -> Files:
    """Return the files that the command line names, with their languages.

    Raises:
        RecipeError: the languages cannot be determined.
    """
    found = tuple(
        given or _language(path) for given, path in zip(languages, (source, target), strict=True)
    )
    if None in found or found[0] == found[1]:
        raise RecipeError(
            f"The file names {source} and {target} do not end with two different languages (found: "
            f"{join_items(found)}). Name the languages with options such as --source-language fr "
            "--target-language en"
        )
    return Files((source, target), validation, {}, (str(found[0]), str(found[1])))


def files_in(folder: Path, languages: tuple[str | None, str | None]) -> Files:
    """Return the corpus files of a folder.

    The training files are named by language, such as train.fr and train.en; validation.* and
    test*.* are named likewise. If the folder has exactly two files, they are the training files,
    whatever their names are.

    Raises:
        RecipeError: the folder has no such files, or files of more than two languages.
    """
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in inside if not path.name.startswith(".")]
    named: dict[str, dict[str, Path]] = {}
    for path in files:
        if language := _language(path):
            use = path.name.split(".")[0]
            named.setdefault(use, {})[language] = path
    there = sorted(named.get("train", {}))
    chosen: list[str | None] = [given or None for given in languages]
    if None in chosen and len(there) == 2:
        chosen = [*there] if chosen == [None, None] else _fill_other_language(chosen, there)
    if None in chosen or not {*map(str, chosen)} <= {*there} or chosen[0] == chosen[1]:
        if sides := _source_and_target(files, languages):
            return files_named(*sides, None, languages)
        raise RecipeError(_no_corpus_reason(folder, files, there, languages))
    source, target = map(str, chosen)

    def both(use: str) -> tuple[Path, Path] | None:
        files = named.get(use, {})
        return (files[source], files[target]) if {source, target} <= files.keys() else None

    train = both("train")
    assert train is not None
    held = next((pair for use in VALIDATION_NAMES if (pair := both(use))), None)
    tests = {use: pair for use in named if use.startswith("test") and (pair := both(use))}
    return Files(train, held, tests, (source, target))


def _no_corpus_reason(
    folder: Path, files: list[Path], there: list[str], given: tuple[str | None, str | None]
) -> str:
    """Return the reason why a folder's files are not a corpus, and the options that help."""
    if not folder.is_dir():
        return f"There is no folder {folder}. Name another one, or use --source FILE --target FILE"
    if len(there) > 2 and not all(given):
        return (
            f"{folder} has training files of {len(there)} languages: {join_items(there)}. Choose "
            f"two, such as --source-language {there[0]} --target-language {there[1]}"
        )
    if len(files) == 2 and all(given):
        first, second = (shlex.quote(str(path)) for path in files)
        return (
            f"{folder} has two files, {_shown(files)}, but their names do not show which file is "
            f"the source. Name the files with --source {first} --target {second}, or the other way "
            "round"
        )
    return (
        f"{folder} has no two files named train.LANGUAGE, such as train.fr and train.en (found: "
        f"{_shown(files)}). Name the files with --source FILE --target FILE"
    )


def _source_and_target(
    files: list[Path], languages: tuple[str | None, str | None]
) -> tuple[Path, Path] | None:
    """Return source and target if there are two files whose names tell them apart, else None."""
    if len(files) != 2 or not all(path.is_file() for path in files):
        return None
    uses = {path.name.split(".")[0] for path in files}
    if not all(languages) and len(uses) > 1:  # one of the files may be a README.md
        return None
    words = [{*re.split(r"[._-]", path.name.lower())} for path in files]
    for of_side in ([{str(language).lower()} for language in languages], SIDES):
        straight, crossed = (
            any(found & wanted for found, wanted in zip(order, of_side, strict=True))
            for order in (words, words[::-1])
        )
        if straight != crossed:
            return (files[0], files[1]) if straight else (files[1], files[0])
    return None if any(languages) else (files[0], files[1])


def _shown(files: list[Path]) -> str:
    names = [path.name for path in files[:NAMES_SHOWN]]
    return join_items(names) + (
        f" and {len(files) - NAMES_SHOWN:,} more" if files[NAMES_SHOWN:] else ""
    )


def _fill_other_language(chosen: list[str | None], there: list[str]) -> list[str | None]:
    given = next(language for language in chosen if language)
    rest = [language for language in there if language != given]
    return [language or (rest[0] if len(rest) == 1 else None) for language in chosen]


def _language(path: Path) -> str | None:
    """Return the language that ends a file's name, such as fr for train.fr.gz, or None."""
    suffix = name_suffix(path.name).removeprefix(".")
    return suffix if _LANGUAGE.fullmatch(suffix) else None


def write_recipe(
    path: Path, files: Files, init_from: Path | None = None, tag: str | None = None
) -> dict[str, Any]:
    """Write the recipe, and a validation set if none is given, and return a summary.

    Args:
        init_from: folder of the Marian model whose weights the run starts from.
        tag: tag to prepend to every source sentence.

    Raises:
        RecipeError: the recipe or the corpus folder already exists, or there is no model.
        ModelError, TokenizerError: the model cannot be read.
        CorpusError: a file cannot be read, or the two sides have different numbers of lines.
    """
    folder = path.with_name(f"{path.stem}-corpus")
    for there in (path, *(() if files.validation else (folder,))):
        if there.exists():
            raise RecipeError(
                f"{there} already exists, and `transloom init` does not overwrite it: name another "
                f"recipe file, or remove {there} first"
            )
    theirs = (
        None if init_from is None else sections_of(init_from, tag)
    )  # raises an error before the corpus is read, which may take hours
    counts = _read(files, None if files.validation else folder)
    written = [str(path)]
    if files.validation is None:
        files = _of_folder(files, folder)
        written.append(str(folder))
    scale = scale_of(counts.pairs, counts.target_characters)
    if init_from is not None:
        scale = tuning_scale(scale, f"The run starts from the weights of {init_from.name}.")
    sections = theirs or own_sections(scale)
    text = _recipe_text(path, files, counts, scale, sections, tag)
    path.write_text(text, encoding="utf-8")
    load_recipe(path)  # raises an error if the written recipe is invalid
    return {
        "recipe": str(path),
        "written": written,
        "pairs": counts.pairs,
        "held_out": counts.held_out,
        "scale": scale.name,
        "steps": scale.steps,
    }


def _of_folder(files: Files, folder: Path) -> Files:
    source, target = files.languages

    def both(use: str) -> tuple[Path, Path]:
        return folder / f"{use}.{source}", folder / f"{use}.{target}"

    return Files(both("train"), both("validation"), files.tests, files.languages)


def _read(files: Files, folder: Path | None) -> Counts:
    """Count the pairs of the training files.

    If `folder` is given, also split the pairs into training and validation files in that folder.
    """
    pairs = held_out = characters = 0
    if folder is None:
        for _, target in _pairs(files.train):
            pairs, characters = pairs + 1, characters + len(target)
        return Counts(pairs, 0, characters)
    total = sum(1 for _ in _pairs(files.train))
    one_in = max(2, math.ceil(total / max(1, min(MAX_HELD_OUT, total * HELD_OUT_SHARE))))
    folder.mkdir(parents=True)
    with ExitStack() as opened:
        outputs: dict[str, tuple[TextIO, ...]] = {}
        of_folder = _of_folder(files, folder)
        assert of_folder.validation is not None
        for use, paths in (("train", of_folder.train), ("validation", of_folder.validation)):
            outputs[use] = tuple(
                opened.enter_context(path.open("x", encoding="utf-8", newline="\n"))
                for path in paths
            )
        for pair in _pairs(files.train):
            use = "validation" if _number(pair[0]) % one_in == 0 else "train"
            for output, text in zip(outputs[use], pair, strict=True):
                output.write(f"{text}\n")
            held_out += use == "validation"
            pairs += use == "train"
            characters += len(pair[1]) * (use == "train")
    if not pairs or not held_out:
        raise RecipeError(
            f"{files.train[0]} has only {counted(total, 'pair')}, too few to hold out a validation "
            "set. Add pairs to the corpus, or name a validation set with --validation-source and "
            "--validation-target"
        )
    return Counts(pairs, held_out, characters)


def _pairs(files: tuple[Path, Path]) -> Iterator[tuple[str, ...]]:
    corpus = PairCorpusConfig(source=Location(str(files[0])), target=Location(str(files[1])))
    reader = CorpusReader(corpus, mirror=None, cache=cache_folder(None))
    for chunk in reader.chunks(PAIRS_PER_CHUNK):
        for example in parse(chunk):
            yield example.texts


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _recipe_text(
    path: Path,
    files: Files,
    counts: Counts,
    scale: Scale,
    sections: ModelSections,
    tag: str | None,
) -> str:
    assert files.validation is not None
    source, target = files.languages
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-") or "mine"
    held = (
        f"\n# {counted(counts.held_out, 'pair')} of the corpus were held out for validation. No "
        "source sentence is\n# in both sets."
        if counts.held_out
        else ""
    )
    tests = "".join(f"\n    {use}: {_both(paths, tag)}" for use, paths in files.tests.items())
    text = TEMPLATE.format(
        path=path,
        name=name,
        source=source,
        target=target,
        pairs=counted(counts.pairs, "training pair"),
        held=held,
        train=_both(files.train, tag),
        validation=_both(files.validation, tag),
        tests=tests or "{}",
        scale=scale,
        rate=f"{scale.rate:f}".rstrip("0"),  # YAML reads 5e-05 as a string
        tokenizer=sections.tokenizer,
        model=sections.model,
        first_weights=sections.first_weights,
    )
    return _COMMENT.sub(lambda found: f"{found[1]:<{COMMENT_COLUMN}}  # ", text)


def _both(paths: tuple[Path, Path], tag: str | None) -> str:
    more = "" if tag is None else f", tag: {quoted(tag)}"
    return f"{{source: {quoted(paths[0])}, target: {quoted(paths[1])}{more}}}"
