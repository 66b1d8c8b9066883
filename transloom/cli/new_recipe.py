"""Work of `transloom init`: write a recipe for a user's corpus, with settings that suit its size.

    FILES ──read──▶ pairs, characters, words ──▶ a scale ──▶ RECIPE, with a comment for each choice
      └── no validation set given ──▶ STEM-corpus/{train,validation}.{SOURCE,TARGET}

The source sentence alone determines whether a pair is held out. Pairs with equal source sentences
therefore stay together, and no source sentence is both trained on and scored.

Everything is written into a hidden folder and checked there. Recipe and corpus appear only when
all of it has succeeded, so a call that fails can be repeated.
"""

import hashlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from heapq import heappush, heapreplace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from data_pipeline.config.corpus import plain_name
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.corpora.corpus import CorpusReader
from data_pipeline.corpora.formats import parse
from data_pipeline.errors import CorpusError
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.regular_files import open_regular
from data_pipeline.tokenizers.sentence_piece import SPECIAL_PIECES, vocabulary_range
from foundation.location import Location
from foundation.wording import counted, join_items
from transloom.cli.model_sections import ModelSections, own_sections, sections_of
from transloom.cli.recipe_scales import Scale, scale_of, tuning_scale
from transloom.cli.recipe_template import TEMPLATE, Block, fill

PAIRS_PER_CHUNK = 4096
MAX_HELD_OUT = 1000
HELD_OUT_SHARE = 0.05
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
NAMES_SHOWN = 8
# Files that other systems put into folders and archives.
SYSTEM_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
# Different words of a corpus that are kept, and words per piece from which the possible vocabulary
# sizes are determined. Other words could only add pieces.
MAX_WORDS = 100_000
WORDS_PER_PIECE = 8
# `prepare` cleans the text first, which can change the possible sizes. Therefore a vocabulary stays
# this far below the maximum, and above the minimum, where possible.
VOCABULARY_MARGIN = 1.25
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


@dataclass
class TextStatistics:
    """Properties of the training text that determine the settings.

    Attributes:
        characters: all different characters.
        words: up to `MAX_WORDS` different words, in the order in which they occur.
        return_ended: files whose lines end at carriage returns.
    """

    pairs: int = 0
    held_out: int = 0
    target_characters: int = 0
    characters: set[str] = field(default_factory=set)
    words: dict[str, None] = field(default_factory=dict)
    return_ended: tuple[str, ...] = ()

    def add(self, source: str, target: str) -> None:
        self.pairs += 1
        self.target_characters += len(target)
        self.characters.update(source, target)
        if len(self.words) < MAX_WORDS:
            self.words.update(dict.fromkeys(source.split() + target.split()))


class _HoldOut:
    """Selection of the source sentences with the smallest hashes, in constant memory."""

    def __init__(self) -> None:
        self.total = 0
        self._pairs: dict[int, int] = {}  # number of pairs, by the hash of their source
        self._largest: list[int] = []  # heap of the negated hashes

    def add(self, source: str) -> None:
        number = _number(source)
        self.total += 1
        if number in self._pairs:
            self._pairs[number] += 1
        elif len(self._pairs) < MAX_HELD_OUT:
            heappush(self._largest, -number)
            self._pairs[number] = 1
        elif number < -self._largest[0]:
            del self._pairs[-heapreplace(self._largest, -number)]
            self._pairs[number] = 1

    def chosen(self, name: object) -> frozenset[int]:
        """Return the hashes of the sources to hold out.

        Raises:
            RecipeError: there are no two different sources.
        """
        if len(self._pairs) < 2:
            raise RecipeError(
                f"{name} has {counted(self.total, 'pair')} and only one different source sentence, "
                "so none can be held out for validation: no source sentence is both trained on and "
                "validated. Add pairs with other source sentences, or name a validation set with "
                "--validation-source and --validation-target"
            )
        goal = min(MAX_HELD_OUT, int(self.total * HELD_OUT_SHARE))
        chosen, held = set(), 0
        for number, pairs in sorted(self._pairs.items()):
            if held + pairs <= goal:
                chosen.add(number)
                held += pairs
        rarest = min(self._pairs, key=lambda number: (self._pairs[number], number))
        return frozenset(chosen or {rarest})


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
    files = [p for p in inside if not p.name.startswith(".") and p.name not in SYSTEM_FILES]
    named: dict[str, dict[str, Path]] = {}
    for path in files:
        if language := _language(path):
            use = path.name.split(".")[0].lower()
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
    suffix = plain_name(PurePosixPath(path.name)).suffix.removeprefix(".")
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
    for new in (path, *(() if files.validation else (folder,))):
        if new.exists():
            raise RecipeError(
                f"{new} already exists, and `transloom init` does not overwrite it: name another "
                f"recipe file, or remove {new} first"
            )
    _require_readable(files)
    # Read first, because an error in the folder should not appear only after hours of reading.
    sections = None if init_from is None else sections_of(init_from, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.stem}-", suffix=".unfinished", dir=path.parent
    ) as hidden:
        corpus = None if files.validation else Path(hidden) / folder.name
        statistics = _read(files, corpus)
        if corpus is not None:
            files = _of_folder(files, folder)
        scale = scale_of(statistics.pairs, statistics.target_characters)
        if init_from is not None:
            scale = tuning_scale(scale, f"The run starts from the weights of {init_from.name}.")
        else:
            vocabulary = _possible_vocabulary(statistics, scale.vocabulary)
            scale = replace(scale, vocabulary=vocabulary)
        text = _recipe_text(path, files, statistics, scale, sections or own_sections(scale), tag)
        recipe = Path(hidden) / path.name
        recipe.write_text(text, encoding="utf-8")
        try:
            load_recipe(recipe)
        except RecipeError as error:
            raise RecipeError(str(error).replace(str(recipe), str(path))) from error
        _publish(recipe, path, corpus, folder)
    return {
        "recipe": str(path),
        "written": [str(path), *([str(folder)] if corpus else [])],
        "pairs": statistics.pairs,
        "held_out": statistics.held_out,
        "scale": scale.name,
        "steps": scale.steps,
        "notes": _notes(statistics, sections),
    }


def _require_readable(files: Files) -> None:
    """Open all files, because errors of other readers assume that a recipe names the files."""
    for path in (*files.train, *(files.validation or ()), *sum(files.tests.values(), ())):
        try:
            open_regular(path.expanduser()).close()
        except OSError as error:
            raise CorpusError(
                f"{path} cannot be read ({error.strerror}). Correct the path on the command line."
            ) from error


def _publish(recipe: Path, path: Path, corpus: Path | None, folder: Path) -> None:
    """Move the recipe and its corpus to their final places; on an error, move neither."""
    if corpus is not None:
        corpus.rename(folder)
    try:
        recipe.rename(path)
    except BaseException:
        if corpus is not None:
            shutil.rmtree(folder)
        raise


def _notes(statistics: TextStatistics, sections: ModelSections | None) -> list[str]:
    """Return what the user should know before training."""
    notes = []
    if statistics.return_ended:
        notes.append(
            f"The lines of {join_items(statistics.return_ended)} end at carriage returns (\\r), "
            "which are read as line ends."
        )
    return notes


def _possible_vocabulary(statistics: TextStatistics, wanted: int) -> int:
    """Return the vocabulary size nearest to the wanted one that a tokenizer of the text can have.

    Raises:
        TokenizerError: no tokenizer can be trained.
    """
    words = islice(statistics.words, WORDS_PER_PIECE * wanted)
    characters = len(statistics.characters) + len(SPECIAL_PIECES)
    limit = int(VOCABULARY_MARGIN * max(wanted, 2 * characters))
    fewest, most = vocabulary_range(words, TokenizerConfig(vocabulary_size=limit))
    fewest = min(max(fewest, characters), most)  # every character needs a piece
    below, above = int(most / VOCABULARY_MARGIN), int(fewest * VOCABULARY_MARGIN)
    return max(fewest, min(max(wanted, above), below))


def _of_folder(files: Files, folder: Path) -> Files:
    source, target = files.languages

    def both(use: str) -> tuple[Path, Path]:
        return folder / f"{use}.{source}", folder / f"{use}.{target}"

    return Files(both("train"), both("validation"), files.tests, files.languages)


def _read(files: Files, folder: Path | None) -> TextStatistics:
    """Return the statistics of the training files.

    If `folder` is given, also split the pairs into training and validation files in that new
    folder.
    """
    statistics = TextStatistics()
    if folder is None:
        for source, target in _pairs(files.train, statistics):
            statistics.add(source, target)
        return statistics
    hold_out = _HoldOut()
    for source, _ in _pairs(files.train, statistics):
        hold_out.add(source)
    held = hold_out.chosen(files.train[0])
    folder.mkdir()
    with ExitStack() as opened:
        outputs: dict[str, tuple[TextIO, ...]] = {}
        of_folder = _of_folder(files, folder)
        assert of_folder.validation is not None
        for use, paths in (("train", of_folder.train), ("validation", of_folder.validation)):
            outputs[use] = tuple(
                opened.enter_context(path.open("x", encoding="utf-8", newline="\n"))
                for path in paths
            )
        for pair in _pairs(files.train, statistics):
            use = "validation" if _number(pair[0]) in held else "train"
            for output, text in zip(outputs[use], pair, strict=True):
                output.write(f"{text}\n")
            if use == "train":
                statistics.add(*pair)
            else:
                statistics.held_out += 1
    return statistics


def _pairs(files: tuple[Path, Path], statistics: TextStatistics) -> Iterator[tuple[str, str]]:
    corpus = PairCorpusConfig(source=Location(str(files[0])), target=Location(str(files[1])))
    reader = CorpusReader(corpus, mirror=None, cache=cache_folder(None))
    for chunk in reader.chunks(PAIRS_PER_CHUNK):
        for example in parse(chunk):
            source, target = example.texts
            yield source, target
    statistics.return_ended = reader.return_ended


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _recipe_text(
    path: Path,
    files: Files,
    statistics: TextStatistics,
    scale: Scale,
    sections: ModelSections,
    tag: str | None,
) -> str:
    assert files.validation is not None
    source, target = files.languages
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-") or "mine"
    held = (
        f"\n# {counted(statistics.held_out, 'pair')} of the corpus were held out for validation. "
        "No source sentence is\n# in both sets."
        if statistics.held_out
        else ""
    )
    tests = "".join(
        f"\n    {re.sub(r'[^a-z0-9_.-]', '-', use)}: {_both(paths, tag)}"
        for use, paths in files.tests.items()
    )
    return fill(
        TEMPLATE,
        path=shlex.quote(str(path)),
        name=name,
        dataset=f"datasets/{name}",
        source=source,
        target=target,
        pairs=counted(statistics.pairs, "training pair"),
        held=Block(held),
        train=_both(files.train, tag),
        validation=_both(files.validation, tag),
        tests=Block(tests or "{}"),
        tokenizer=sections.tokenizer,
        model=sections.model,
        first_weights=sections.first_weights or Block(""),
        **scale.for_template(),
    )


def _both(paths: tuple[Path, Path], tag: str | None) -> Block:
    more = "" if tag is None else ", tag: {tag}"
    sides = dict(zip(("source", "target"), map(str, paths), strict=True))
    pair = fill(f"{{{{source: {{source}}, target: {{target}}{more}}}}}", **sides, tag=tag)
    return Block(pair.rstrip("\n"))
