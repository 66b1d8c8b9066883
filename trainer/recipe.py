"""The part of a recipe that determines a run's curve, whoever places its ranks.

values ──▶ its extensions are loaded ──▶ its task and network tell the classes of its sections
    ──▶ a recipe of these classes, validated
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
from foundation.built_in_tasks import DEFAULT_TASK
from foundation.errors import ExtensionError
from foundation.extensions import Extensions, load_expected, load_extensions, loaded_extensions
from foundation.location import Location, strip_credentials, check_all
from foundation.section import REQUIRED, ChangeClass, Section, change_class, execution, identity
from foundation.wording import join_items
from model.config.transformer import NetworkConfig
from trainer.config import CheckpointsConfig, EngineConfig, TrackingConfig, TrainerConfig
from trainer.errors import RunMismatchError
from trainer.registries.optimizers import OPTIMIZERS
from trainer.scores import SCORES
from trainer.task_kinds import NETWORKS, TASKS, TaskKind


class TrainingRecipe(Section):
    """Everything that the ranks need to know. The cluster's recipe adds where they run.

    Its sections `data`, `tokenizer`, `batching`, `model` and `decoding` are of the classes that
    task and network have for them: `of` makes a recipe with these.
    """

    general: ClassVar[type["TrainingRecipe"]]  # the class without the task's own sections

    name: str = execution(
        REQUIRED, "Names the run's folder.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    seed: int = identity(1, "Of initial weights, data order and dropout.", ge=0)
    task: str = identity(
        DEFAULT_TASK,
        "What is learned: translation, causal_lm, masked_lm, tlm, sentence_embedding, "
        "text_classification, token_classification or an extension's.",
    )
    extensions: tuple[str, ...] = identity(
        (), "Modules that register tasks, networks, losses and so on; see docs/extending.md."
    )
    extension_folder: Location | None = execution(
        None, "The folder of their packages, on every node; null: they are installed."
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

    @field_validator("extension_folder")
    @classmethod
    def _as_every_process_finds_it(cls, folder: Location | None) -> Location | None:
        return None if folder is None else Location(str(Path(folder).expanduser().absolute()))

    @model_validator(mode="after")
    def _the_task_agrees(self) -> Self:
        kind, more = self.kind, self.trainer.validation_scores
        if more and not kind.makes_texts:
            raise ValueError(
                f"trainer.validation_scores is {join_items(more)}, and the validation of {self.task} "
                "makes no texts that these could score: leave it out"
            )
        for name in more:
            SCORES.known(name)
        if self.tracking.probe_sentences and not self._can_probe:
            raise ValueError(
                f"tracking.probe_sentences are given, and {self.task} with the network "
                f"{self.model.network} cannot trace one: leave them out"
            )
        self._require_two_passes_that_differ()
        stopping = self.trainer.early_stopping
        for key, metric in (
            ("checkpoints.best_by", self.checkpoints.best_by),
            ("trainer.early_stopping.metric", stopping.metric if stopping else None),
        ):
            if metric is not None and metric not in (*kind.scores, *more):
                raise ValueError(
                    f"{key} is {metric!r}, and the validation of {self.task} gives "
                    f"{', '.join([*kind.scores, *more])}: name one of these"
                )
        kind.check(self)
        return self

    @model_validator(mode="after")
    def _exact_numerics_need_an_exact_optimizer(self) -> "TrainingRecipe":
        name = self.trainer.optimizer.type
        reason = OPTIMIZERS[name].not_exact_because
        if self.engine.numerics == "exact" and reason:
            raise ValueError(
                f"engine.numerics is 'exact' and trainer.optimizer.type is {name!r}, which cannot "
                f"be: {reason}. Set engine.numerics to 'fast', or take another optimizer"
            )
        return self

    def _require_two_passes_that_differ(self) -> None:
        """Require, for `trainer.r_drop`, a task that can feed two passes, and dropout."""
        weight = self.trainer.r_drop
        if weight and not self.kind.repeats:
            can = join_items([name for name in TASKS if TASKS[name].repeats])
            raise ValueError(
                f"trainer.r_drop is {weight}, and micro-batches of {self.task} cannot be fed "
                f"twice, as those of {can} can: leave it out"
            )
        rates = ("dropout", "attention_dropout")
        if weight and not any(getattr(self.model, rate, 1) for rate in rates):
            raise ValueError(
                f"trainer.r_drop is {weight} and model.dropout is 0, so both passes over a "
                "micro-batch are equal: set model.dropout, or leave trainer.r_drop out"
            )

    @property
    def _can_probe(self) -> bool:
        return self.kind.probes and self.model.network == self.kind.network

    @property
    def kind(self) -> TaskKind:
        """What a recipe shows of its task."""
        return TASKS[self.task]

    @property
    def loaded_extensions(self) -> Extensions:
        """The extensions, which were loaded before the recipe was read."""
        return loaded_extensions(self.extensions, self.extension_folder)

    @property
    def data_settings(self) -> DataSettings:
        """The settings that decide which examples the run is fed, and how they are batched."""
        return DataSettings(
            self.data, self.tokenizer, self.batching, self.seed, self.task, self.loaded_extensions
        )

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The recipe with these values, once its extensions are loaded.

        Raises:
            LocationError: a value or a key carries a credential.
            ExtensionError: one of them, the task or the network is not found.
            pydantic.ValidationError: a value is wrong.
        """
        check_all(values)  # before anything that would say a value
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
        """Return the recipe that a run, a checkpoint or a job holds, whoever wrote it.

        Extensions are loaded only if their code is that of the identity, and never from the folder
        that the values name.

        Args:
            identity: the run's identity; None if there is none to compare with.
            own_folder: the folder that the user names for extensions, besides the environment's.

        Raises:
            LocationError, ExtensionError, pydantic.ValidationError: as `of` does.
        """
        named = values.get("extension_folder")
        named_folder = named if isinstance(named, str) else None
        load_expected(_extension_names(values), identity, own_folder, named_folder)
        return cls.of(values | {"extension_folder": own_folder})

    @classmethod
    def of_checkpoint(cls, values: dict[str, Any], identity: dict[str, Any]) -> Self:
        """Return the recipe that a checkpoint holds.

        Args:
            identity: the identity in the checkpoint.

        Raises:
            RunMismatchError: it was written by a version with other fields, or with extensions
                that are not here.
        """
        try:
            return cls.of_untrusted(strip_credentials(values), identity)
        except ExtensionError as error:
            raise RunMismatchError(f"The checkpoint's recipe cannot be read: {error}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            raise RunMismatchError(
                f"The checkpoint's recipe has {'.'.join(map(str, problem['loc']))} = "
                f"{problem['input']!r}, which this version does not take ({problem['msg']}): use "
                "the version that wrote it"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # A class that was made for a task has no place to be imported from. Extensions go first:
        # what unpickles the rest needs them.
        return _restored, (self.loaded_extensions, self.general, self.model_dump(mode="json"))


TrainingRecipe.general = TrainingRecipe
R = TypeVar("R", bound=TrainingRecipe)


def _extension_names(values: dict[str, Any]) -> tuple[str, ...]:
    """The names under `extensions`; none if they are no names, which validation then refuses."""
    names = values.get("extensions", ())
    well_formed = isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names)
    return tuple(names) if well_formed else ()


def recipe_class(general: type[R], task: str = DEFAULT_TASK, network: str | None = None) -> type[R]:
    """The class of recipes of a task.

    Args:
        general: TrainingRecipe, or a class with further sections.
        network: the network's name; None for the task's own.

    Raises:
        ExtensionError: there is no such task or network.
    """
    # The same class whether the task's own network is named or not: recipes compare their classes.
    return _recipe_class(general, task, network or TASKS[task].network)


@cache
def _recipe_class(general: type[R], task: str, network: str) -> type[R]:
    kind = TASKS[task]
    sections: dict[str, Any] = {
        "data": (kind.data, REQUIRED),
        "tokenizer": (kind.tokenizer, REQUIRED),
        "batching": (kind.batching, REQUIRED),
        "model": (NETWORKS[network].config, REQUIRED),
        "decoding": (kind.decoding, kind.decoding()),
    }
    made = create_model(general.__name__, __base__=general, __module__=__name__, **sections)
    made.general = general
    return made


def class_of(general: type[R], values: dict[str, Any]) -> type[R]:
    """The class of the recipe with these values; its extensions are loaded already.

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
    """Every leaf field of a config with its dotted name, its value and its change class."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if change := change_class(field):
            yield prefix + name, value, change
        elif isinstance(value, Section):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            raise TypeError(f"config field {prefix}{name} has no change class")


def identity_of(recipe: TrainingRecipe) -> dict[str, Any]:
    """What makes the run what it is: fields by dotted name, as JSON values, and its extensions."""
    fields = {name: _plain(value) for name, value, change in leaves(recipe) if change == "identity"}
    return fields | recipe.loaded_extensions.identity()


def identity_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a line for each identity field in which two runs differ, with both values."""
    return [
        f"{name}: {before!r} there, {after!r} here"
        for name, (before, after) in differing_identity(old, new).items()
    ]


def differing_identity(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the identity fields in which two runs differ, with both values.

    A field that is missing from one of them, because a later version added it, has its default.
    """
    names = sorted(old.keys() | new.keys())
    before, after = (
        {n: _compact(strip_credentials(values[n]) if n in values else _default_of(n, values)) for n in names}
        for values in (old, new)
    )
    return {n: (before[n], after[n]) for n in names if before[n] != after[n]}


def _default_of(name: str, identity: dict[str, Any]) -> Any:
    """The default of a field of a run's recipe; None if it has none or there is no such field."""
    task, network = identity.get("task", DEFAULT_TASK), identity.get("model.network")
    if task not in TASKS or (network is not None and network not in NETWORKS):
        return None  # an extension's that is not loaded here
    model: Any = recipe_class(TrainingRecipe, task, network)
    default = None
    for part in name.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return None
        model, default = fields[part].annotation, fields[part].get_default()
    return None if default is PydanticUndefined else _plain(default)


def _compact(value: Any) -> Any:
    """A value without its nulls, so that a missing field and a default of null are the same."""
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_compact(item) for item in value]
    return value


def continuable_differences(old: TrainingRecipe, new: TrainingRecipe) -> dict[str, list[Any]]:
    """The continuable fields whose values change when a run is continued, each as [old, new]."""
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
