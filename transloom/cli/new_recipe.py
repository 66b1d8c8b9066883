"""Work of `transloom init`: write a recipe for a user's corpus, with settings that suit its size.

    FILES ──read──▶ pairs, characters, words ──▶ a scale ──▶ RECIPE, with a comment for each choice
      └── no validation set given ──▶ STEM-corpus/{train,validation}.{SOURCE,TARGET}

The recipe and the corpus are written into a hidden folder, and moved to their final places only
after all checks have succeeded. A failed call can therefore be repeated. A killed call can be
repeated, too: its hidden folder shows that an existing recipe or corpus was written by that call.
"""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_recipe
from data_pipeline.storage.regular_files import publish_folder, sync_to_disk
from foundation.folder_lock import leftovers, work_folder
from foundation.wording import counted, join_items
from trainer.start.model_folder import WITH_SENTENCE_PIECE, is_model_folder, model_type
from transloom.cli.corpus_files import Files, TextFiles, require_readable
from transloom.cli.held_out import files_of_folder, read_pairs, read_texts
from transloom.cli.model_sections import ModelSections, own_sections, sections_of
from transloom.cli.pair_file import PairFile
from transloom.cli.recipe_scales import Scale, scale_of, tuning_scale
from transloom.cli.recipe_template import TEMPLATE, RecipePart, fill
from transloom.cli.text_statistics import TextStatistics, fitted_scale
from transloom.cli.tuning_recipe import (
    TunedModel,
    recipe_text,
    recipe_values,
    text_data,
    tuned_model,
)


def write_recipe(
    path: Path,
    files: Files | TextFiles | PairFile,
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
    note = files.note if isinstance(files, PairFile) else ""
    splits = isinstance(files, PairFile) or (isinstance(files, Files) and files.validation is None)
    was_killed = bool(leftovers(path))
    for new in (path, *((folder,) if splits else ())):
        if new.exists() and not was_killed:
            raise _already_exists(new)
    require_readable(files.paths)
    # Read first, because an error in the folder should not appear only after hours of reading.
    model = None if init_from is None else _model_of(init_from, files, tag)
    with work_folder(path) as hidden:
        recipe = hidden / path.name
        corpus = hidden / folder.name if splits else None
        if not isinstance(files, TextFiles):
            statistics = read_pairs(files, corpus)
            if corpus is not None:
                files = files_of_folder(files, folder)
        else:
            assert isinstance(model, TunedModel)
            draft = _tuned_text(path, files, model, tuning_scale(scale_of(1, 1), ""))
            statistics = read_texts(_write(draft, recipe, path).data.train[0])
        assert not isinstance(files, PairFile), "its pairs are split"
        scale = scale_of(statistics.pairs, statistics.target_characters)
        if init_from is not None:
            scale = tuning_scale(scale, f"The run starts from the weights of {init_from.name}.")
        else:
            scale = fitted_scale(scale, statistics)
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
        "notes": [*([note] if note else []), *_notes(statistics, model)],
    }


def _model_of(
    folder: Path, files: Files | TextFiles | PairFile, tag: str | None
) -> ModelSections | TunedModel:
    """Return the recipe sections for the model in a folder.

    Raises:
        RecipeError: the folder has no model, or the model does not suit the files or the tag.
    """
    if not is_model_folder(folder):
        raise RecipeError(
            f"{folder} has no config.json, so it does not contain a model. Name the folder of a "
            "model in Hugging Face's layout. To start from a run's weights, set trainer.init_from "
            "in the recipe"
        )
    of_pairs = not isinstance(files, TextFiles)
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
    """Write a recipe file, and return the recipe read from it; `path` is its name in errors.

    Raises:
        RecipeError: the recipe is invalid.
    """
    recipe.write_text(text, encoding="utf-8")
    try:
        return load_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(recipe), str(path))) from error


def _publish(recipe: Path, path: Path, corpus: Path | None, folder: Path) -> None:
    """Move the recipe and its corpus to their final places; on an error, move neither.

    Files that already exist there were written by a killed call, and are replaced.

    Raises:
        RecipeError: the recipe that the killed call wrote has been changed since.
    """
    if path.exists() and path.read_bytes() != recipe.read_bytes():
        raise _already_exists(path)
    if corpus is not None:
        shutil.rmtree(folder, ignore_errors=True)
        publish_folder(corpus, folder)
    sync_to_disk(recipe)
    try:
        recipe.rename(path)
    except BaseException:
        if corpus is not None:
            shutil.rmtree(folder)
        raise
    sync_to_disk(path.parent)


def _already_exists(path: Path) -> RecipeError:
    return RecipeError(
        f"{path} already exists, and `transloom init` does not overwrite it: name another recipe "
        f"file, or remove {path} first"
    )


def _notes(statistics: TextStatistics, model: ModelSections | TunedModel | None) -> list[str]:
    """Return notes that the user should read before training."""
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
