"""Recipes: one strictly checked YAML file per experiment, completed by `key=value` overrides.

Precedence is defaults < recipe < overrides. An unknown key fails, and the error suggests the
nearest known key. The name of a run's folder consists of its recipe's name and the identity fields
that overrides change.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo

from cluster.config import ClusterConfig
from cluster.errors import RecipeError
from cluster.recipe_problems import FieldProblem, message_of, override_text, problems_of
from data_pipeline.config.corpus import is_remote
from data_pipeline.storage.regular_files import read_regular
from foundation.errors import ExtensionError, LocationError
from foundation.extensions import FOLDER_VARIABLE
from foundation.location import check_all
from foundation.strict_yaml import MAX_BYTES, YamlError, parse_yaml
from foundation.wording import counted, format_value
from run_store.config import CheckpointsConfig
from run_store.errors import RunMismatchError
from trainer.recipe import TrainingRecipe, class_of, identity_of, recipe_class

if TYPE_CHECKING:
    from run_store.folder import RunFolder  # at runtime, it would slow down shell completion

# Folder of the built-in recipes. An installed wheel has it inside the package `cluster`; a checkout
# has it next to the packages.
_HERE = Path(__file__).resolve().parent
RECIPES = next((p for p in (_HERE / "recipes", _HERE.parent / "recipes") if p.is_dir()), _HERE)


class Recipe(TrainingRecipe):
    """A whole recipe: the training and its placement."""

    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _every_rank_has_a_slot(self) -> "Recipe":
        slots = self.batching.micro_batches_per_step
        ranks = self.cluster.max_ranks
        if ranks > slots:
            raise ValueError(
                f"cluster.ranks is {ranks}, but a step has only {counted(slots, 'micro-batch')} "
                f"(batching.micro_batches_per_step): use at most {counted(slots, 'rank')}"
            )
        return self

    def training(self) -> TrainingRecipe:
        """Return the recipe without its cluster section, for the ranks."""
        values = {name: getattr(self, name) for name in TrainingRecipe.model_fields}
        return recipe_class(TrainingRecipe, self.task, self.model.network).model_construct(**values)


Recipe.general = Recipe


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides such as `trainer.max_steps=200`.

    Raises:
        RecipeError: the recipe is invalid; the message has the file, key, value and remedy.
    """
    _check_locations(overrides)
    own = _read(path)
    return _build(path, own, _with_overrides(own, overrides), overrides, Recipe.of)


def _build(
    path: Path,
    own: dict[str, Any],
    values: dict[str, Any],
    overrides: Sequence[str],
    build: Callable[[dict[str, Any]], Recipe],
) -> Recipe:
    """Build a recipe from values, and attribute each problem to the file or to an override.

    Args:
        own: the values of the file, without the overrides.
        values: the values of the file with the overrides applied.
    """
    try:
        return build(values)
    except (ExtensionError, LocationError, ValidationError) as error:
        problems = _problems(values, error)
        text = message_of(path, problems, overrides, lambda: _problems_of(own, build))
        raise RecipeError(text) from error


def _check_locations(overrides: Sequence[str]) -> None:
    for override in overrides:
        try:
            check_all(override, "override")
        except LocationError as error:
            raise RecipeError(str(error)) from error


def _problems_of(
    values: dict[str, Any], build: Callable[[dict[str, Any]], Recipe]
) -> list[FieldProblem]:
    try:
        build(values)
    except (ExtensionError, LocationError, RunMismatchError, ValidationError) as error:
        return _problems(values, error)
    return []


def _problems(
    values: dict[str, Any],
    error: ExtensionError | LocationError | RunMismatchError | ValidationError,
) -> list[FieldProblem]:
    if not isinstance(error, ValidationError):
        return [FieldProblem("", str(error))]
    recipe = class_of(Recipe, values)
    return problems_of(error, recipe, [name for name, _ in walk_fields(recipe)])


def load_run_recipe(run: "RunFolder", overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a run's last start, and apply the user's overrides.

    Loading the run executes no code of its author; see `TrainingRecipe.of_untrusted`.

    Raises:
        RunMismatchError: the run does not exist, or an extension of the run is not installed.
        RecipeError: the recipe or an override is invalid.
    """
    return load_untrusted_recipe(run.recipe, run.card().identity, overrides)


def load_untrusted_recipe(
    path: Path,
    identity: Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    theirs: Sequence[str] = (),
) -> Recipe:
    """Read a recipe that is stored with a run or a job, without trusting it.

    Args:
        identity: the run's identity, which the code of extensions must match; None if there is no
            identity to compare with.
        overrides: the user's overrides, which may name an `extension_folder`.
        theirs: the overrides stored with the run or the job; they are applied first.

    Raises:
        RunMismatchError: an extension is not installed.
        RecipeError: the recipe or an override is invalid.
    """
    _check_locations(overrides)
    own = _with_overrides(_read(path), theirs)
    named_folder = own.pop("extension_folder", None)
    values = _with_overrides(own, overrides)
    # A folder that the environment names becomes part of the recipe for ranks and workers, because
    # the variable may not be set on their nodes.
    own_folder = values.pop("extension_folder", None) or os.environ.get(FOLDER_VARIABLE)
    if not isinstance(own_folder, str | None):
        raise RecipeError(
            f"extension_folder is {format_value(own_folder)}, expected the path of a folder: give "
            "it as extension_folder=FOLDER"
        )

    def build(values: dict[str, Any]) -> Recipe:
        named = values | {"extension_folder": named_folder}
        try:
            return Recipe.of_untrusted(named, identity, own_folder)
        except ExtensionError as error:
            raise RunMismatchError(f"{path}: {error}") from error

    return _build(path, own, values, overrides, build)


def checkpoints_of_run(run: "RunFolder") -> CheckpointsConfig:
    """Read a run's checkpoint settings without its other settings and its extensions.

    Raises:
        RecipeError: the run's recipe or this section of it is invalid.
    """
    section = _read(run.recipe).get("checkpoints", {})
    try:
        return CheckpointsConfig.model_validate(section)
    except ValidationError as error:
        problems = problems_of(error, CheckpointsConfig, list(CheckpointsConfig.model_fields))
        source = f"{run.recipe}, section checkpoints"
        raise RecipeError(message_of(source, problems, (), list)) from error


def find_recipe(name: str) -> Path:
    """Return the path of a recipe, given its path or the name of a built-in recipe."""
    path = Path(name)
    if path.is_file():
        return path
    built_in = RECIPES / f"{path.stem}.yaml"
    if path.parent == Path() and built_in.exists():
        return built_in
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    beside = {str(path.parent / file.name) for file in path.parent.glob("*.y*ml")}
    close = get_close_matches(name, {*known, *beside}, n=1) or get_close_matches(
        path.stem, known, n=1
    )
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise RecipeError(
        f"There is no recipe {name!r}{hint}. Give the path of a recipe file, or the name of a "
        f"built-in recipe: {', '.join(known)}"
    )


def run_name(path: Path, overrides: Sequence[str]) -> str:
    """Return the name of the run's folder, e.g. `phrasebook` or `phrasebook,seed=2`."""
    recipe = load_recipe(path, overrides)
    after = identity_of(recipe)
    try:
        before = identity_of(load_recipe(path))
    except RecipeError:  # the recipe is complete only with its overrides
        before = after
    changed = [f"{key}={_short(after[key])}" for key in after if before.get(key) != after[key]]
    return ",".join([recipe.name, *changed])


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths, because ranks and workers may run in other folders."""
    if recipe.extension_folder is not None:
        folder = str(Path(recipe.extension_folder).expanduser().absolute())
        recipe = recipe.model_copy(update={"extension_folder": folder})
    if is_remote(recipe.data.dataset):
        return recipe
    dataset = str(Path(recipe.data.dataset.removeprefix("file://")).expanduser().absolute())
    return recipe.with_values(data={"dataset": dataset})


def _read(path: Path) -> dict[str, Any]:
    data = b""
    try:
        data = read_regular(path, MAX_BYTES)
        values = parse_yaml(data.decode())
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{path}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8 "
            f"({error.reason}). Convert the file, for example with iconv"
        ) from error
    except YamlError as error:
        raise RecipeError(f"{path} is not a recipe: {error}") from error
    if not isinstance(values, dict):
        kind = {list: "a list", type(None): "nothing"}.get(type(values), "a single value")
        raise RecipeError(
            f"{path} is not a recipe: it contains {kind}, expected sections such as `data:` and "
            f"`trainer:`. `transloom recipes phrasebook` shows a recipe"
        )
    return values


def _with_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed = deepcopy(values)
    for override in overrides:
        _apply(changed, override)
    return changed


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(
            f"Override {override!r} is not of the form key=value, e.g. trainer.max_steps=200"
        )
    try:
        value = parse_yaml(text)
    except YamlError as error:
        raise RecipeError(f"{override_text((override,))}: {error}") from error
    *sections, name = key.split(".")
    table: Any = values
    for section in sections:
        if isinstance(table, dict):
            table = table.setdefault(section, {})
        else:
            table = table[_position(override, section, table)]
        if not isinstance(table, (dict, list)):
            raise RecipeError(f"{override_text((override,))}: {section} is a value, not a section")
    if isinstance(table, list):
        table[_position(override, name, table)] = value
    else:
        table[name] = value


def _position(override: str, text: str, items: list[Any]) -> int:
    """Return the list index that a part of an override's key gives, such as the 0 in `a.0.b`."""
    if not text.isdecimal() or int(text) >= len(items):
        raise RecipeError(
            f"{override_text((override,))}: {text} must be a number below {len(items)}, the length "
            "of the list"
        )
    return int(text)


def walk_fields(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield all sections and fields of a config with their dotted names, in order."""
    for name, field in config.model_fields.items():
        yield prefix + name, field
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from walk_fields(inner, f"{prefix}{name}.")


def _short(value: Any) -> str:
    text = str(value).replace("/", "_").replace(" ", "")
    plain = not isinstance(value, (list, dict))
    if plain and len(text) <= 24:
        return text
    return text[: 12 * plain] + "~" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
