"""The part of a recipe that determines a run's curve, whoever places its ranks."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from data_pipeline.config import BatchingConfig, DataConfig, DataSettings, TokenizerConfig
from data_pipeline.section import (
    REQUIRED,
    ChangeClass,
    Section,
    change_class,
    execution,
    identity,
)
from model.config import DecodingConfig, ModelConfig
from trainer.config import CheckpointsConfig, EngineConfig, TrackingConfig, TrainerConfig
from trainer.errors import RunMismatchError
from trainer.optimizers import OPTIMIZERS


class TrainingRecipe(Section):
    """Everything that the ranks need to know. The cluster's recipe adds where they run."""

    name: str = execution(
        REQUIRED, "Names the run's folder.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    seed: int = identity(1, "Of initial weights, data order and dropout.", ge=0)
    data: DataConfig
    tokenizer: TokenizerConfig
    batching: BatchingConfig
    model: ModelConfig
    trainer: TrainerConfig
    engine: EngineConfig = EngineConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    decoding: DecodingConfig = DecodingConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _shared_embeddings_need_a_joint_vocabulary(self) -> "TrainingRecipe":
        if self.model.share_embeddings == "all" and not self.tokenizer.joint:
            raise ValueError(
                "model.share_embeddings is 'all' and tokenizer.joint is false, so unrelated pieces "
                "of the two languages would share a vector: set tokenizer.joint to true, or "
                "model.share_embeddings to 'decoder' or 'none'"
            )
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

    @property
    def data_settings(self) -> DataSettings:
        """The settings that decide which pairs the run is fed, and how they are batched."""
        return DataSettings(self.data, self.tokenizer, self.batching, self.seed)

    @classmethod
    def of_checkpoint(cls, values: dict[str, Any]) -> "TrainingRecipe":
        """The recipe that a checkpoint holds.

        Raises:
            RunMismatchError: it was written by a version with other fields.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            raise RunMismatchError(
                f"The checkpoint's recipe has {'.'.join(map(str, problem['loc']))} = "
                f"{problem['input']!r}, which this version does not take ({problem['msg']}): use "
                "the version that wrote it"
            ) from error


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


def identity_of(recipe: Section) -> dict[str, Any]:
    """The fields that make the run what it is, by dotted name, as JSON values."""
    return {name: _plain(value) for name, value, change in leaves(recipe) if change == "identity"}


def identity_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A line for each identity field in which two runs differ, with both values.

    A field that is missing from one of them, because a later version added it, has its default.
    """
    names = sorted(old.keys() | new.keys())
    before, after = (
        {name: _compact(values[name] if name in values else _default_of(name)) for name in names}
        for values in (old, new)
    )
    return [
        f"{name}: {before[name]!r} there, {after[name]!r} here"
        for name in before
        if before[name] != after[name]
    ]


def _default_of(name: str) -> Any:
    """The default of a field of the recipe; None if it has none or there is no such field."""
    model: Any = TrainingRecipe
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


def continuable_differences(old: dict[str, Any], new: TrainingRecipe) -> dict[str, list[Any]]:
    """The continuable fields whose values change when a run is continued, each as [old, new].

    Args:
        old: a recipe as a checkpoint holds it.
    """
    before = {name: value for name, value, _ in leaves(TrainingRecipe.of_checkpoint(old))}
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
