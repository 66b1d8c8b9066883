"""Pairs in one file: columns and languages, guessed from its first line for `transloom init`.

a.tsv     fr<TAB>en                                   a header, or sentences in columns 0 and 1
a.jsonl   {"translation": {"fr": "…", "en": "…"}}     keys, with dots for nested objects
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.errors import RecipeError
from data_pipeline.config.corpus import plain_name
from data_pipeline.config.pair import PairColumns, PairCorpusConfig
from data_pipeline.corpora.lines import LineReader
from data_pipeline.storage.locations import cache_folder, open_location
from foundation.file_model import JsonLimits, parse_object
from foundation.location import Location
from foundation.wording import join_first
from transloom.cli.corpus_files import SIDES, require_readable

SUFFIXES = (".tsv", ".jsonl")
LIMITS = JsonLimits(bytes=1_000_000, values=10_000)  # for the first line of a file
KEYS_SHOWN = 8
_CODE = re.compile(r"[a-z]{2,3}(?:[_-][A-Za-z]+)?")
_CODES_OF_NAME = re.compile(r"(?<![A-Za-z])([a-z]{2})[-_]([a-z]{2})(?![A-Za-z])")


@dataclass(frozen=True)
class PairFile:
    """File with both sides of a corpus.

    Attributes:
        columns: the columns of source and target.
        languages: source and target language.
    """

    path: Path
    columns: PairColumns
    languages: tuple[str, str]

    @property
    def corpus(self) -> PairCorpusConfig:
        return PairCorpusConfig(files=(Location(str(self.path)),), columns=self.columns)

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def note(self) -> str:
        """Sentence that says what was guessed."""
        (source, target), columns = self.languages, self.columns
        return (
            f"Column {columns.source} of {self.path.name} is the source ({source}), column "
            f"{columns.target} the target ({target}). If it is the other way round, swap "
            "--source-language and --target-language."
        )


def is_pair_file(path: Path) -> bool:
    return plain_name(PurePosixPath(path.name)).suffix.lower() in SUFFIXES


def pair_file(path: Path, languages: tuple[str | None, str | None]) -> PairFile:
    """Guess the columns of a file, and its languages if they are not given.

    Raises:
        CorpusError: the file cannot be read, or is not UTF-8.
        RecipeError: columns or languages cannot be guessed.
    """
    require_readable([path])
    with open_location(str(path), mirror=None, cache=cache_folder(None)) as stream:
        line = LineReader(stream).take(1).decode()[0]
    source, target = languages
    given = (source, target) if source and target else None
    named = given or _languages_of_name(path)
    if plain_name(PurePosixPath(path.name)).suffix.lower() == ".tsv":
        names = line.split("\t")
        if not _sides_of(names, named or languages):  # the line is not a header
            if len(names) < 2:
                raise RecipeError(
                    f"{path}, line 1 has no tab, expected source and target of a pair"
                )
            return _pair_file(path, [0, 1], named)
    else:
        try:
            names = [name for name, _ in _texts(parse_object(line.encode(), LIMITS))]
        except ValueError as error:
            raise RecipeError(f"{path}, line 1 is not a JSON object: {error}") from error
    columns = _sides_of(names, named or languages)
    if not columns:
        raise RecipeError(
            f"{path}, line 1 has texts under {join_first(names, KEYS_SHOWN)}, which do not show "
            "what is the source and what the target. Name the languages as they are named there, "
            "with --source-language and --target-language"
        )
    ends = [name.rpartition(".")[2] for name in columns]
    are_codes = all(map(_CODE.fullmatch, ends)) and not {*ends} & (SIDES[0] | SIDES[1])
    by_name = (ends[0], ends[1]) if are_codes else None
    return _pair_file(path, columns, given or by_name or named)


def _pair_file(
    path: Path, columns: "list[str] | list[int]", languages: tuple[str, str] | None
) -> PairFile:
    if languages is None:
        raise RecipeError(
            f"{path} does not show its languages. Name them with options such as --source-language "
            "fr --target-language en"
        )
    return PairFile(path, PairColumns(source=columns[0], target=columns[1]), languages)


def _sides_of(names: list[str], languages: tuple[str | None, str | None]) -> list[str]:
    """Return the names of the source's and the target's column, or [] if they are not clear."""
    ends = {name.rpartition(".")[2].lower(): name for name in reversed(names)}
    given = [str(language).lower() for language in languages]
    if {*given} <= ends.keys():
        return [ends[language] for language in given]
    sides = [next((ends[word] for word in sorted(side) if word in ends), "") for side in SIDES]
    if all(sides):
        return sides
    codes = [name for name in names if _CODE.fullmatch(name.rpartition(".")[2])]
    return codes if len(codes) == len(names) == 2 else []


def _texts(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of an object and of the objects in it, with dotted keys."""
    for key, value in values.items():
        if isinstance(value, str):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict):
            yield from _texts(value, f"{prefix}{key}.")


def _languages_of_name(path: Path) -> tuple[str, str] | None:
    found = _CODES_OF_NAME.findall(path.name)
    return found[0] if len(found) == 1 else None
