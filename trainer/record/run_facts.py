"""What the folder of a run holds, as far as it can be read: see `trainer.record.standing`.

A folder may be half-written, damaged or made up: what cannot be read is a problem of the facts, not
an error.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from data_pipeline.storage.regular_files import read_regular
from foundation.written import told
from trainer.checkpoints.format import CheckpointHeader, list_checkpoints, read_header
from trainer.checkpoints.lease import Ownership, ownership
from trainer.errors import TrainerError
from trainer.record.record_end import RecordEnd, read_record_end
from trainer.runs.folder import RunFolder
from trainer.runs.log import LogEntry, last_entries
from trainer.runs.place import Place, read_place

T = TypeVar("T")

RECIPE_BYTES = 2_000_000
# `recipe.yaml` is written by us, so it has this form; to parse a thousand of them takes a minute.
_MAX_STEPS = re.compile(rb"^trainer:\n(?:  .*\n)*?  max_steps: (\d{1,15})\n", re.MULTILINE)
_LOSS = re.compile(rb"^trainer:\n(?:  .*\n)*?  loss: (\w+)\n", re.MULTILINE)
_LABEL_SMOOTHING = re.compile(
    rb"^trainer:\n(?:  .*\n)*?  label_smoothing: ([\d.e+-]{1,30})\n", re.MULTILINE
)


class RunFacts(NamedTuple):
    """What a folder holds, as far as it can be read.

    Attributes:
        smooths_labels: whether the training loss includes label smoothing, as the recipe says.
    """

    has_card: bool
    max_steps: int | None
    smooths_labels: bool
    ownership: Ownership | None
    log: list[LogEntry]
    record: RecordEnd
    place: Place | None
    newest: Path | None  # the newest checkpoint
    header: CheckpointHeader | None
    problems: list[str]


class Problems(list[str]):
    """Reads one thing after another, and keeps what cannot be read."""

    def tried(self, what: Path, read: Callable[[], T], otherwise: T) -> T:
        """What `read` returns, or `otherwise` with a problem of this file or folder."""
        try:
            return read()
        except ValidationError as error:
            self.append(f"{what} is damaged: {told(error)}")
        except TrainerError as error:
            self.append(str(error))
        except OSError as error:
            self.append(f"{what} cannot be read: {error.strerror or error}")
        except ValueError as error:
            self.append(f"{what} is damaged: {error}")
        return otherwise


def read_facts(run: RunFolder, record_bytes: int) -> RunFacts:
    """What a run's folder holds; nothing is written, and no file is read whole that grows.

    Args:
        record_bytes: how much of the end of its record is read.
    """
    problems = Problems()
    owners, checkpoints = run.path / "owners", run.checkpoints
    # The owner first: one that leaves after this has written all that is read below.
    held = problems.tried(owners, lambda: ownership(run.path), None)
    record = problems.tried(
        run.metrics, lambda: read_record_end(run.metrics, record_bytes), RecordEnd()
    )
    none: list[Path] = []
    paths = problems.tried(checkpoints, lambda: list_checkpoints(checkpoints), none)
    newest = paths[-1] if paths else None
    header = problems.tried(checkpoints, lambda: read_header(newest), None) if newest else None
    unknown: tuple[int | None, bool] = (None, False)
    max_steps, smooths_labels = problems.tried(run.recipe, lambda: _of_recipe(run, header), unknown)
    return RunFacts(
        has_card=problems.tried(run.card_path, lambda: bool(run.card()), False),
        max_steps=max_steps,
        smooths_labels=smooths_labels,
        ownership=held,
        log=problems.tried(run.log, lambda: last_entries(run.log), []),
        record=record,
        place=problems.tried(run.place, lambda: read_place(run), None),
        newest=newest,
        header=header,
        problems=list(problems) + ([record.problem] if record.problem else []),
    )


def _of_recipe(run: RunFolder, header: CheckpointHeader | None) -> tuple[int | None, bool]:
    """Return `max_steps` and `smooths_labels`.

    They are read from `recipe.yaml`, that of the last start, or else from the newest checkpoint.
    """
    try:
        recipe = read_regular(run.recipe, RECIPE_BYTES)
    except FileNotFoundError:
        recipe = b""
    if found := _MAX_STEPS.search(recipe):
        loss, smoothing = _LOSS.search(recipe), _LABEL_SMOOTHING.search(recipe)
        is_cross_entropy = loss is not None and loss[1] == b"cross_entropy"
        return int(found[1]), is_cross_entropy and smoothing is not None and float(smoothing[1]) > 0
    trainer = value_within(header.recipe, "trainer") if header else None
    steps, smoothing_then = (value_within(trainer, key) for key in ("max_steps", "label_smoothing"))
    smooths = value_within(trainer, "loss") == "cross_entropy" and bool(smoothing_then)
    return steps if isinstance(steps, int) else None, smooths


def value_within(values: Any, *keys: str) -> Any:
    """The value at the end of a path through tables; None where one is missing."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values
