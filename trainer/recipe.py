"""Part of a recipe that determines a run's training curve, without the placement of ranks.

values ──▶ load the extensions ──▶ select the section classes of the task and the network
    ──▶ create a recipe of these classes, and validate it
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticUndefined

from data_pipeline.config.data import BatchingConfig, DataConfig, DataSettings, TokenizerConfig
from foundation.errors import ExtensionError
from foundation.extensions import Extensions, load_expected, load_extensions, loaded_extensions
from foundation.location import Location, check_all, strip_credentials
from foundation.registry import resolved
from foundation.section import REQUIRED, ChangeClass, Section, change_class, execution, identity
from foundation.tasks import BUILT_IN_TASKS, DEFAULT_TASK, TASKS, TaskKind
from foundation.wording import join_items
from model.config.transformer import NetworkConfig
from run_store.config import CheckpointsConfig
from run_store.errors import RunMismatchError
from trainer.config import (
    MAX_CALLBACKS,
    CallbackConfig,
    EngineConfig,
    TrackingConfig,
    TrainerConfig,
)
from trainer.registries.callbacks import GuardKind
from trainer.registries.optimizers import OPTIMIZERS
from trainer.scores import SCORES
from trainer.task_kinds import NETWORKS


class TrainingRecipe(Section):
    """All settings that the ranks need; the cluster's recipe adds their placement.

    The classes of its sections `data`, `tokenizer`, `batching`, `model` and `decoding` depend on
    the task and network: `of` creates a recipe with these classes.
    """

    general: ClassVar[type["TrainingRecipe"]]  # the base class, without the sections of a task

    name: str = execution(
        REQUIRED, "Name of the run's folder.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    seed: int = identity(1, "Seed of initial weights, data order and dropout.", ge=0)
    task: str = identity(
        DEFAULT_TASK,
        f"Task to learn: {', '.join(BUILT_IN_TASKS)} or an extension's.",
    )
    extensions: tuple[str, ...] = identity(
        (), "Modules that register tasks, networks, losses and so on; see docs/how-to/extending.md."
    )
    extension_folder: Location | None = execution(
        None, "Folder with the extensions' packages, on every node; null if they are installed."
    )
    data: DataConfig
    tokenizer: TokenizerConfig
    batching: BatchingConfig
    model: NetworkConfig
    trainer: TrainerConfig
    engine: EngineConfig = EngineConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    decoding: Section = Section()
    tracking: TrackingConfig = TrackingConfig()
    callbacks: tuple[CallbackConfig, ...] = identity(
        (),
        "Guards and observers of extensions, each as {type, options}; see "
        "docs/how-to/extending.md. Observers may be added, changed and removed within a run.",
    )

    @field_validator("extension_folder")
    @classmethod
    def _as_every_process_finds_it(cls, folder: Location | None) -> Location | None:
        return None if folder is None else Location(str(Path(folder).expanduser().absolute()))

    @field_validator("callbacks")
    @classmethod
    def _are_few(cls, callbacks: tuple[CallbackConfig, ...]) -> tuple[CallbackConfig, ...]:
        types = [callback.type for callback in callbacks]
        if len(set(types)) < len(types) or len(types) > MAX_CALLBACKS:
            raise ValueError(
                f"callbacks has the types {join_items(types)}, expected at most {MAX_CALLBACKS} "
                "types, each once: remove the others, or register a callback under two names"
            )
        return callbacks

    @model_validator(mode="after")
    def _the_task_agrees(self) -> Self:
        kind, more = self.kind, self.trainer.validation_scores
        if more and not kind.makes_texts:
            raise ValueError(
                f"trainer.validation_scores is {join_items(more)}, but the validation of "
                f"{self.task} generates no texts to score: remove trainer.validation_scores"
            )
        for name in more:
            SCORES.known(name)
        can_probe = kind.probes and self.model.network == kind.network
        if self.tracking.probe_sentences and not can_probe:
            raise ValueError(
                f"tracking.probe_sentences is set, but {self.task} with the network "
                f"{self.model.network} does not support it: remove tracking.probe_sentences"
            )
        self._require_two_passes_that_differ()
        for key, metric in self.scores_followed.items():
            if metric not in (*kind.scores, *more):
                raise ValueError(
                    f"{key} is {metric!r}, but the scores of a validation of {self.task} are "
                    f"{', '.join([*kind.scores, *more])}: use one of these scores"
                )
        resolved(kind.check)(self)
        return self

    @model_validator(mode="after")
    def _exact_numerics_need_an_exact_optimizer(self) -> "TrainingRecipe":
        name = self.trainer.optimizer.type
        reason = OPTIMIZERS[name].not_exact_because
        if self.engine.numerics == "exact" and reason:
            raise ValueError(
                f"engine.numerics is 'exact', but trainer.optimizer.type {name!r} does not support "
                f"it: {reason}. Set engine.numerics to 'fast', or use another optimizer"
            )
        return self

    def _require_two_passes_that_differ(self) -> None:
        """Require dropout, and a task that supports two passes, if `trainer.r_drop` is set."""
        weight = self.trainer.r_drop
        if weight and not self.kind.repeats:
            can = join_items([name for name in TASKS if TASKS[name].repeats])
            raise ValueError(
                f"trainer.r_drop is {weight}, but the task {self.task} does not support R-Drop "
                f"(supported by: {can}): remove trainer.r_drop"
            )
        rates = ("dropout", "attention_dropout")
        if weight and not any(getattr(self.model, rate, 1) for rate in rates):
            raise ValueError(
                f"trainer.r_drop is {weight}, but model.dropout is 0, so both passes over a "
                "micro-batch would be equal: raise model.dropout, or remove trainer.r_drop"
            )

    @property
    def kind(self) -> TaskKind:
        """Properties of the recipe's task."""
        return TASKS[self.task]

    @property
    def scores_followed(self) -> dict[str, str]:
        """Scores by which checkpoints are kept and the run is stopped, by their recipe keys."""
        scores = {"checkpoints.best_by": self.checkpoints.best_by}
        if stopping := self.trainer.early_stopping:
            scores["trainer.early_stopping.metric"] = stopping.metric
        return scores

    @property
    def loaded_extensions(self) -> Extensions:
        """Extensions of the recipe, which were loaded before it was validated."""
        return loaded_extensions(self.extensions, self.extension_folder)

    @property
    def data_settings(self) -> DataSettings:
        """Settings that determine the examples of the run and their batches."""
        return DataSettings(
            self.data, self.tokenizer, self.batching, self.seed, self.task, self.loaded_extensions
        )

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Load the extensions of these values and return the validated recipe.

        Raises:
            LocationError: a value or a key carries a credential.
            ExtensionError: an extension, the task or the network does not exist.
            pydantic.ValidationError: a value is invalid.
        """
        check_all(values)  # check locations first, because later errors quote values
        folder = values.get("extension_folder")
        load_extensions(_extension_names(values), folder if isinstance(folder, str) else None)
        return class_of(cls, values).model_validate(values)

    @classmethod
    def of_untrusted(
        cls,
        values: dict[str, Any],
        identity: Mapping[str, Any] | None,
        own_folder: str | None = None,
    ) -> Self:
        """Return the recipe in a run, a checkpoint or a job from an untrusted source.

        Extensions are loaded only if their code matches the identity, and never from the folder
        that the values name.

        Args:
            values: the fields of the recipe.
            identity: the run's identity, or None if there is none to compare with.
            own_folder: the user's own folder of extensions, in addition to the environment.

        Raises:
            LocationError, ExtensionError, pydantic.ValidationError: as for `of`.
        """
        named = values.get("extension_folder")
        named_folder = named if isinstance(named, str) else None
        load_expected(_extension_names(values), identity, own_folder, named_folder)
        return cls.of(values | {"extension_folder": own_folder})

    @classmethod
    def of_checkpoint(cls, values: dict[str, Any], identity: dict[str, Any]) -> Self:
        """Return the recipe in a checkpoint.

        Args:
            values: the fields of the recipe.
            identity: the identity in the checkpoint.

        Raises:
            RunMismatchError: the recipe was written by a version with other fields, or needs
                extensions that are not installed.
        """
        try:
            return cls.of_untrusted(strip_credentials(values), identity)
        except ExtensionError as error:
            raise RunMismatchError(f"The checkpoint's recipe cannot be read: {error}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            raise RunMismatchError(
                f"The checkpoint's recipe has {'.'.join(map(str, problem['loc']))} = "
                f"{problem['input']!r}, which this version does not accept ({problem['msg']}): use "
                "the version of transloom that wrote the checkpoint"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle cannot import a class that was created for a task, so the values are pickled
        # instead. The extensions are pickled first, because unpickling them loads the modules that
        # the values need.
        return _restored, (self.loaded_extensions, self.general, self.model_dump(mode="json"))


TrainingRecipe.general = TrainingRecipe
R = TypeVar("R", bound=TrainingRecipe)


def _extension_names(values: dict[str, Any]) -> tuple[str, ...]:
    """Return the names in `extensions`; empty if malformed, which validation refuses later."""
    names = values.get("extensions", ())
    well_formed = isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names)
    return tuple(names) if well_formed else ()


def recipe_class(general: type[R], task: str = DEFAULT_TASK, network: str | None = None) -> type[R]:
    """Return the class of recipes of a task.

    Args:
        general: TrainingRecipe, or a class with further sections.
        task: the task's name.
        network: the network's name, or None for the task's default.

    Raises:
        ExtensionError: there is no such task or network.
    """
    # Resolve the default network first. Recipes of different classes are never equal, so naming the
    # default network must not create another class.
    return _recipe_class(general, task, network or TASKS[task].network)


@cache
def _recipe_class(general: type[R], task: str, network: str) -> type[R]:
    kind = TASKS[task]
    decoding = resolved(kind.decoding)
    sections: dict[str, Any] = {
        "data": (resolved(kind.data), REQUIRED),
        "tokenizer": (resolved(kind.tokenizer), REQUIRED),
        "batching": (resolved(kind.batching), REQUIRED),
        "model": (NETWORKS[network].config, REQUIRED),
        "decoding": (decoding, decoding()),
    }
    made = create_model(general.__name__, __base__=general, __module__=__name__, **sections)
    made.general = general
    return made


def class_of(general: type[R], values: dict[str, Any]) -> type[R]:
    """Return the recipe class for these values, whose extensions must already be loaded.

    Raises:
        ExtensionError: there is no such task or network.
    """
    model = values.get("model")
    network = model.get("network") if isinstance(model, dict) else None
    task = values.get("task", DEFAULT_TASK)
    return recipe_class(general, str(task), None if network is None else str(network))


def _restored(_: Extensions, general: type[R], values: dict[str, Any]) -> R:
    return general.of(values)


def leaves(config: Section, prefix: str = "") -> Iterator[tuple[str, Any, ChangeClass]]:
    """Yield every leaf field of a config: its dotted name, its value and its change class.

    `callbacks` is yielded without observers, because they do not affect the run.
    """
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if field.annotation == tuple[CallbackConfig, ...]:
            value = tuple(one for one in value if isinstance(one.kind, GuardKind))
        if change := change_class(field):
            yield prefix + name, value, change
        elif isinstance(value, Section):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            raise TypeError(f"config field {prefix}{name} has no change class")


def identity_of(recipe: TrainingRecipe) -> dict[str, Any]:
    """Return the run's identity: identity fields as JSON values by dotted name, and extensions.

    A run without a guard has the identity that it has in versions without `callbacks`.
    """
    fields = {name: _plain(value) for name, value, change in leaves(recipe) if change == "identity"}
    if not fields["callbacks"]:
        del fields["callbacks"]
    return fields | recipe.loaded_extensions.identity()


def identity_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a line for each identity field in which two runs differ, with both values."""
    return [
        f"{name}: {before!r} there, {after!r} here"
        for name, (before, after) in differing_identity(old, new).items()
    ]


def differing_identity(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the identity fields in which two runs differ, with both values.

    If one run lacks a field because a later version added it, the field's default is compared.
    """
    names = sorted(old.keys() | new.keys())
    before, after = (
        {
            n: _compact(strip_credentials(values[n]) if n in values else _default_of(n, values))
            for n in names
        }
        for values in (old, new)
    )
    return {n: (before[n], after[n]) for n in names if before[n] != after[n]}


def _default_of(name: str, identity: dict[str, Any]) -> Any:
    """Return the default of a field of a run's recipe, or None if it has none."""
    task, network = identity.get("task", DEFAULT_TASK), identity.get("model.network")
    if task not in TASKS or (network is not None and network not in NETWORKS):
        return None  # they are of an extension that is not loaded here
    model: Any = recipe_class(TrainingRecipe, task, network)
    default = None
    for part in name.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return None
        model, default = fields[part].annotation, fields[part].get_default()
    return None if default is PydanticUndefined else _plain(default)


def _compact(value: Any) -> Any:
    """Remove nulls from a value, so that a missing field equals a default of null."""
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_compact(item) for item in value]
    return value


def continuable_differences(old: TrainingRecipe, new: TrainingRecipe) -> dict[str, list[Any]]:
    """Return the continuable fields whose values differ between two recipes, as [old, new]."""
    before = {name: value for name, value, _ in leaves(old)}
    return {
        name: [_plain(before[name]), _plain(value)]
        for name, value, change in leaves(new)
        if change == "continuable" and before[name] != value
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
