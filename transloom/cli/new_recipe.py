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
from pathlib import Path
from typing import Any, TextIO

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.corpora.corpus import CorpusReader
from data_pipeline.corpora.formats import parse
from data_pipeline.storage.locations import cache_folder
from data_pipeline.tokenizers.sentence_piece import SPECIAL_PIECES, vocabulary_range
from foundation.location import Location
from foundation.wording import counted, join_items
from trainer.runs.model_folder import WITH_SENTENCE_PIECE, is_model_folder, model_type
from transloom.cli.corpus_files import Files, TextFiles, require_readable
from transloom.cli.model_sections import ModelSections, own_sections, sections_of
from transloom.cli.recipe_scales import Scale, scale_of, tuning_scale
from transloom.cli.recipe_template import TEMPLATE, RecipePart, fill
from transloom.cli.tuning_recipe import (
    TunedModel,
    recipe_text,
    recipe_values,
    text_data,
    tuned_model,
)

PAIRS_PER_CHUNK = 4096
MAX_HELD_OUT = 1000
HELD_OUT_SHARE = 0.05
# Different words of a corpus that are kept, and words per piece from which the possible vocabulary
# sizes are determined. Other words could only add pieces.
MAX_WORDS = 100_000
WORDS_PER_PIECE = 8
# `prepare` cleans the text first, which can change the possible sizes. Therefore a vocabulary stays
# this far below the maximum, and above the minimum, where possible.
VOCABULARY_MARGIN = 1.1


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


def write_recipe(
    path: Path,
    files: Files | TextFiles,
    init_from: Path | None = None,
    tag: str | None = None,
) -> dict[str, Any]:
    """Write the recipe, and a validation set if none is given, and return a summary.

    Args:
        init_from: folder of the model whose weights the run starts from; required for `TextFiles`.
        tag: tag to prepend to every source sentence, for a Marian model.

    Raises:
        RecipeError: the recipe or the corpus folder already exists, or there is no model.
        ModelError, TokenizerError: the model cannot be read.
        CorpusError: a file cannot be read, or the two sides have different numbers of lines.
    """
    folder = path.with_name(f"{path.stem}-corpus")
    splits = isinstance(files, Files) and files.validation is None
    for new in (path, *((folder,) if splits else ())):
        if new.exists():
            raise RecipeError(
                f"{new} already exists, and `transloom init` does not overwrite it: name another "
                f"recipe file, or remove {new} first"
            )
    require_readable(files)
    # Read first, because an error in the folder should not appear only after hours of reading.
    model = None if init_from is None else _model_of(init_from, files, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.stem}-", suffix=".unfinished", dir=path.parent
    ) as hidden:
        recipe = Path(hidden) / path.name
        corpus = Path(hidden) / folder.name if splits else None
        if isinstance(files, Files):
            statistics = _read(files, corpus)
            files = _of_folder(files, folder) if splits else files
        else:
            assert isinstance(model, TunedModel)
            draft = _tuned_text(path, files, model, tuning_scale(scale_of(1, 1), ""))
            statistics = _read_texts(_write(draft, recipe, path).data.train[0])
        scale = scale_of(statistics.pairs, statistics.target_characters)
        if init_from is not None:
            scale = tuning_scale(scale, f"The run starts from the weights of {init_from.name}.")
        else:
            vocabulary = _possible_vocabulary(statistics, scale.vocabulary)
            scale = replace(scale, vocabulary=vocabulary)
        if isinstance(model, TunedModel):
            text = _tuned_text(path, files, model, scale)
        else:
            assert isinstance(files, Files)
            text = _recipe_text(path, files, statistics, scale, model or own_sections(scale), tag)
        _write(text, recipe, path)
        _publish(recipe, path, corpus, folder)
    return {
        "recipe": str(path),
        "written": [str(path), *([str(folder)] if corpus else [])],
        "noun": "training pair" if isinstance(files, Files) else "training text",
        "pairs": statistics.pairs,
        "held_out": statistics.held_out,
        "scale": scale.name,
        "steps": scale.steps,
        "notes": _notes(statistics, model),
    }


def _model_of(
    folder: Path, files: Files | TextFiles, tag: str | None
) -> ModelSections | TunedModel:
    """Return what a recipe says about the model of a folder.

    Raises:
        RecipeError: the folder has no model, the model needs other files, or the tag is not used.
    """
    if not is_model_folder(folder):
        raise RecipeError(
            f"{folder} has no config.json, so it does not contain a model. Name the folder of a "
            "model in Hugging Face's layout. To start from a run's weights, set trainer.init_from "
            "in the recipe"
        )
    of_pairs = isinstance(files, Files)
    if model_type(folder) not in WITH_SENTENCE_PIECE:
        if of_pairs:
            return sections_of(folder, tag)
        raise RecipeError(
            f"{folder} has a translation model, which trains on pairs: name --source FILE and "
            "--target FILE instead of --text"
        )
    if tag is not None:
        raise RecipeError(
            f"--tag is {tag}, but only translation models have tags, and {folder} has none: leave "
            "out --tag"
        )
    return tuned_model(folder, of_pairs=of_pairs)


def _tuned_text(path: Path, files: Files | TextFiles, model: TunedModel, scale: Scale) -> str:
    if isinstance(files, TextFiles):
        data = text_data(model.task, files.train, files.validation)
    else:
        assert files.validation is not None
        source, target = files.languages
        data = {
            "source_language": source,
            "target_language": target,
            "train": [_sides(files.train)],
            "validation": _sides(files.validation),
            "tests": {_test_name(use): _sides(pair) for use, pair in files.tests.items()},
        }
    values = recipe_values(model, _name_of(path), data, scale)
    return recipe_text(values, shlex.quote(str(path)))


def _write(text: str, recipe: Path, path: Path) -> Recipe:
    """Write a recipe, and return it as it is read; `path` is its name in errors.

    Raises:
        RecipeError: the recipe is invalid.
    """
    recipe.write_text(text, encoding="utf-8")
    try:
        return load_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(recipe), str(path))) from error


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


def _notes(statistics: TextStatistics, model: ModelSections | TunedModel | None) -> list[str]:
    """Return what the user should know before training."""
    notes = []
    if model is None:
        notes.append(
            "model.norm is pre, which `transloom export` writes only for CTranslate2. For Hugging "
            "Face, set model.norm to post before training."
        )
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
    limit = round(VOCABULARY_MARGIN * max(wanted, 2 * characters))
    fewest, most = vocabulary_range(words, TokenizerConfig(vocabulary_size=limit))
    fewest = min(max(fewest, characters), most)  # every character needs a piece
    below, above = round(most / VOCABULARY_MARGIN), round(fewest * VOCABULARY_MARGIN)
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


def _read_texts(corpus: CorpusConfig) -> TextStatistics:
    statistics = TextStatistics()
    reader = CorpusReader(corpus, mirror=None, cache=cache_folder(None))
    for chunk in reader.chunks(PAIRS_PER_CHUNK):
        for example in parse(chunk):
            statistics.pairs += 1
            statistics.target_characters += len(example.texts[0])
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
    name = _name_of(path)
    held = (
        f"\n# {counted(statistics.held_out, 'pair')} of the corpus were held out for validation. "
        "No source sentence is\n# in both sets."
        if statistics.held_out
        else ""
    )
    tests = "".join(
        f"\n    {_test_name(use)}: {_both(paths, tag)}" for use, paths in files.tests.items()
    )
    return fill(
        TEMPLATE,
        path=shlex.quote(str(path)),
        name=name,
        dataset=f"datasets/{name}",
        source=source,
        target=target,
        pairs=counted(statistics.pairs, "training pair"),
        held=RecipePart(held),
        train=_both(files.train, tag),
        validation=_both(files.validation, tag),
        tests=RecipePart(tests or "{}"),
        tokenizer=sections.tokenizer,
        model=sections.model,
        first_weights=sections.first_weights or RecipePart(""),
        **scale.for_template(),
    )


def _both(paths: tuple[Path, Path], tag: str | None) -> RecipePart:
    more = "" if tag is None else ", tag: {tag}"
    template = f"{{{{source: {{source}}, target: {{target}}{more}}}}}"
    pair = fill(template, **_sides(paths), tag=tag)
    return RecipePart(pair.rstrip("\n"))


def _sides(paths: tuple[Path, Path]) -> dict[str, str]:
    return {"source": str(paths[0]), "target": str(paths[1])}


def _name_of(path: Path) -> str:
    """Return a name for the runs and the dataset of a recipe."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-") or "mine"


def _test_name(use: str) -> str:
    """Return the beginning of a file's name in the form of a held-out set's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", use)
