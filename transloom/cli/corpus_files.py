"""Files of a user's corpus, found by their names or by options of `transloom init`."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.errors import RecipeError
from data_pipeline.config.corpus import plain_name
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.errors import CorpusError
from data_pipeline.storage.locations import in_stored_form
from data_pipeline.storage.regular_files import open_regular
from foundation.location import Location
from foundation.wording import join_first, join_items

VALIDATION_NAMES = ("validation", "valid", "val", "dev")
NAMES_SHOWN = 8
# Files that macOS and Windows add to folders and archives; they are no part of a corpus.
SYSTEM_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
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

    @property
    def corpus(self) -> PairCorpusConfig:
        """The training files."""
        source, target = (Location(str(path)) for path in self.train)
        return PairCorpusConfig(source=source, target=target)

    @property
    def paths(self) -> tuple[Path, ...]:
        tests = (path for pair in self.tests.values() for path in pair)
        return (*self.train, *(self.validation or ()), *tests)


@dataclass(frozen=True)
class TextFiles:
    """Files of texts, such as documents or labelled texts.

    Attributes:
        validation: held-out texts, or None to hold out a part of the training file.
    """

    train: Path
    validation: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.train, *([self.validation] if self.validation else []))


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
    others = [language for language in there if language not in chosen]
    if len(there) == 2 and len(others) == chosen.count(None):
        chosen = [language or others.pop(0) for language in chosen]
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
    shown = join_first([path.name for path in files], NAMES_SHOWN, noun=None)
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
            f"{folder} has two files, {shown}, but their names do not show which file is "
            f"the source. Name the files with --source {first} --target {second}, or the other way "
            "round"
        )
    return (
        f"{folder} has no two files named train.LANGUAGE, such as train.fr and train.en (found: "
        f"{shown}). Name the files with --source FILE --target FILE"
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


def _language(path: Path) -> str | None:
    """Return the language that ends a file's name, such as fr for train.fr.gz, or None."""
    suffix = plain_name(PurePosixPath(path.name)).suffix.removeprefix(".")
    return suffix if _LANGUAGE.fullmatch(suffix) else None


def require_readable(paths: Iterable[Path]) -> None:
    """Check that all files can be opened, so that errors refer to the command line.

    The errors of later readers refer to a recipe instead.

    Raises:
        CorpusError: a file cannot be read.
    """
    for path in paths:
        try:
            open_regular(in_stored_form(path.expanduser())).close()
        except OSError as error:
            raise CorpusError(
                f"{path} cannot be read ({error.strerror}). Correct the path on the command line."
            ) from error
