"""Format of a checkpoint: fragments in safetensors, described by one JSON file.

::

    checkpoints/step-00000500/
      checkpoint.json                     step, cursor, digest, recipe, every file's sha256
      state-00000-of-00002.safetensors    the fragments that rank 0 owned
      parts.json                          instead of the state files, if an object store has them,
                                          see `run_store.checkpoints.state_objects`
    checkpoints/average-of-400-500/       weights only, see `run_store.checkpoints.averaging`

A folder named `step-…` is complete, even after a power loss (see `run_store.checkpoints.commit`).
Its files cannot execute code: the tensors are safetensors, the rest is JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import MAX_COUNT, Count, FileModel, error_summary, parse_object
from foundation.wording import counted
from run_store.checkpoints.state_file import HEADER_LIMITS, FileRecord
from run_store.config import MAX_WINDOW
from run_store.errors import CheckpointError, CheckpointFormatError
from run_store.scores import Scores

FORMAT = "transloom-checkpoint/2"
HEADER = "checkpoint.json"
MAX_DIMENSIONS = 8
SPIKE_GUARD = "trainer.spike_guard"
MAX_GUARD_STATE_BYTES = 64_000


def _is_of_some_tensor(shape: list[int]) -> list[int]:
    if prod(shape) > MAX_COUNT:
        raise ValueError(f"a tensor has {prod(shape):,} elements, expected at most {MAX_COUNT:,}")
    return shape


Shape = Annotated[
    list[Count],
    Field(fail_fast=True, max_length=MAX_DIMENSIONS),
    AfterValidator(_is_of_some_tensor),
]


Window = Annotated[tuple[float, ...], Field(fail_fast=True, max_length=MAX_WINDOW)]


class Parent(FileModel):
    """Origin of a run's first weights: a checkpoint of another run, or a model's folder."""

    run_id: str  # the id of the other run, or the name of the model's folder
    step: Count
    sha256: str  # hash of checkpoint.json, or of a JSON with the hashes of the model's files


class EarlyStoppingState(FileModel):
    """State of early stopping between validations."""

    metric: str | None = None  # the metric of `best`
    best: float | None = None
    best_step: Count = 0
    validations_since_best: Count = 0


class RecentSteps(FileModel):
    """Window of a spike guard: the last applied steps, oldest first.

    Attributes:
        losses: the loss of each step, per loss unit.
        grad_norms: the gradient norm of each step before clipping.
    """

    losses: Window = ()
    grad_norms: Window = ()

    @model_validator(mode="after")
    def _are_of_the_same_steps(self) -> Self:
        if len(self.losses) != len(self.grad_norms):
            raise ValueError(
                f"recent_steps has {counted(len(self.losses), 'loss')}, but "
                f"{counted(len(self.grad_norms), 'gradient norm')}; expected equal numbers"
            )
        return self


def guard_state(state: Any) -> dict[str, Any]:
    """Return a copy of a guard's state, as a checkpoint stores it.

    Raises:
        TypeError, ValueError: the state is not a JSON object, or is too large.
    """
    text = json.dumps(state, allow_nan=False)
    if not isinstance(state, dict) or len(text) > MAX_GUARD_STATE_BYTES:
        raise ValueError(
            f"the state of a guard is a {type(state).__name__} of {len(text):,} bytes, expected a "
            f"JSON object of at most {MAX_GUARD_STATE_BYTES:,} bytes: keep fewer values"
        )
    copy: dict[str, Any] = json.loads(text)
    return copy


GuardState = Annotated[dict[str, Any], AfterValidator(guard_state)]


class CheckpointHeader(FileModel):
    """Content of checkpoint.json: the whole state of a run except tensors.

    Randomness needs no state: every generator is seeded from `(seed, "dropout", step, slot)`, and
    the seed is part of the recipe.
    """

    format: str = FORMAT
    step: Count
    optimizer_step: Count
    cursor: dict[str, Count]
    data_digest: str
    dataset_identity: str
    recipe: dict[str, Any]
    identity: dict[str, Any]
    numerics: dict[str, Any]
    parameters: dict[str, Shape]
    parameter_groups: list[dict[str, Any]]
    # Scores of this step's validation; empty if there was no validation.
    scores: Scores = Field(default_factory=dict)
    validation_due: bool = False  # a stop request postponed this step's validation
    early_stopping: EarlyStoppingState = EarlyStoppingState()
    target_tokens_seen: Count
    skipped_steps: Count = 0
    skipped_in_a_row: Count = 0
    skipped_spikes: Count = 0
    recent_steps: RecentSteps = RecentSteps()  # state of the guard `SPIKE_GUARD`
    # States of all other guards, by recipe key.
    guards: dict[str, GuardState] = Field(default_factory=dict)
    # Largest recent gradients, see trainer/exact/grids.py.
    gradient_peaks: dict[str, float] = Field(default_factory=dict)
    parent: Parent | None = None
    # Parameters that are not trained; the checkpoint has only their weights.
    frozen: Annotated[list[str], Field(fail_fast=True)] = Field(default_factory=list)
    # Steps of the averaged checkpoints if this is an average; training cannot resume from an
    # average.
    averaged_steps: Annotated[list[Count], Field(fail_fast=True)] = Field(default_factory=list)
    # Description of the origin of the weights if they were imported; training cannot resume from
    # imported weights.
    imported_from: str | None = None
    files: Annotated[list[FileRecord], Field(fail_fast=True)] = Field(default_factory=list)
    sha256: str | None = None  # hash of all other fields; every file has it

    def to_json(self) -> str:
        """Return the content of checkpoint.json, including its hash."""
        values = self.model_dump(mode="json")
        return json.dumps(values | {"sha256": sha256_of_header(values)}, indent=1) + "\n"

    @property
    def guard_states(self) -> dict[str, dict[str, Any]]:
        """States of all guards, by the recipe keys that create them."""
        spikes = self.recent_steps.model_dump(mode="json")
        return self.guards | ({SPIKE_GUARD: spikes} if self.recent_steps.losses else {})


def guard_fields(states: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a header for `CheckpointHeader.guard_states`."""
    others = {name: state for name, state in states.items() if name != SPIKE_GUARD}
    return {"recent_steps": RecentSteps(**states.get(SPIKE_GUARD, {})), "guards": others}


def sha256_of_header(values: dict[str, Any]) -> str:
    """Return the hash of all values of a header except `sha256`.

    The formatting of the JSON file does not affect it.
    """
    rest = {name: value for name, value in values.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_header(path: Path) -> CheckpointHeader:
    """Read the header of a checkpoint from the checkpoint.json in its folder.

    Raises:
        CheckpointError: the header is missing or damaged.
        CheckpointFormatError: this version cannot read the header's format.
    """
    file = path / HEADER
    try:
        values = parse_object(read_regular(file, HEADER_LIMITS.bytes), HEADER_LIMITS)
        written_as = values.get("format")
        if written_as == FORMAT:
            header = CheckpointHeader.model_validate(values)
            if header.sha256 != sha256_of_header(values):
                raise CheckpointError(
                    f"{file} is damaged: the sha256 of its fields is not the one in `sha256`"
                )
            return header
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error_summary(error)}") from error
    raise CheckpointFormatError(
        f"{file} has format {written_as!r:.80}, but this version reads {FORMAT!r}: use the version "
        "of transloom that wrote the file"
    )
