"""time-lapse/: what the network made of the probe sentences at some steps of a run.

    time-lapse/step-00000096.json    a `Moment`: the step, and a `Probe` for each sentence

Which steps these are depends on nothing but their number, so a run that goes on has those that it
would have had. There is a file for each: a run that repeats steps after a restart writes their
files again, whole, in the place of those that were there.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.untrusted_text import visible_in_json
from foundation.strict_json import JsonLimits, parse_object
from foundation.file_model import Count, FileModel, error_summary
from trainer.config import MAX_PROBES
from trainer.tasks.probe import FULL, Probe

# A probe has 64 kB of weights at most, and as much again in texts.
LIMITS = JsonLimits(bytes=2**20, values=20_000)
MAX_FRAMES = 130  # there are no more steps below 2**63
_NAME = re.compile(r"step-(\d{8,19})\.json")


class TimeLapseFrame(FileModel):
    """A step of the training, after it was applied; step 0 is before the first one."""

    version: Literal[1] = 1
    step: Count
    probes: Annotated[tuple[Probe, ...], Field(max_length=MAX_PROBES)]

    def to_json(self) -> str:
        return visible_in_json(json.dumps(self.model_dump(mode="json"), ensure_ascii=False))


@dataclass(frozen=True)
class TimeLapse:
    """What was read of a run's time-lapse.

    Attributes:
        moments: in order.
        problems: what of it cannot be read.
    """

    moments: tuple[TimeLapseFrame, ...] = ()
    problems: tuple[str, ...] = ()


def is_probed(step: int) -> bool:
    """Whether a step has its moment: 0, 1, 2, 3, 4, 6, 8, 12, 16, … each power of two, and half
    as much again."""
    third, rest = divmod(step, 3)
    return _is_power_of_two(step) or step == 0 or (rest == 0 and _is_power_of_two(third))


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def write_frame(folder: Path, moment: TimeLapseFrame) -> Path:
    """Write a moment through to the disk.

    Raises:
        OSError: that failed; what was there before stays.
    """
    folder.mkdir(exist_ok=True)
    path = path_of(folder, moment.step)
    write_atomically(path, moment.to_json() + "\n")
    return path


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.json"


def read_frame(path: Path) -> TimeLapseFrame:
    """The moment in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none; the message names the file.
    """
    try:
        return TimeLapseFrame.model_validate(parse_object(read_regular(path, LIMITS.bytes), LIMITS))
    except ValidationError as error:
        raise ValueError(f"{path} is no moment of a time-lapse: {error_summary(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no moment of a time-lapse: {error}") from error


def read_time_lapse(folder: Path, last_step: int | None = None) -> TimeLapse:
    """All moments up to a step; nothing if there is no such folder.

    Raises:
        OSError: there is something, and it is no folder that can be read.
    """
    moments, problems = [], []
    for step, path in _files(folder):
        if last_step is not None and step > last_step:
            break
        try:
            moments.append(read_frame(path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return TimeLapse(tuple(moments), tuple(problems))


def mean_cross_attention(probe: Probe) -> np.ndarray:
    """Of all heads and all layers, (steps, source pieces), between 0 and 1."""
    maps = [one.bytes_hts for one in probe.attention if one.place.endswith("cross_attention")]
    mean: np.ndarray = np.concatenate(maps).mean(axis=0) / FULL
    return mean


def most_attended(probe: Probe) -> list[tuple[str, str]]:
    """For each piece of the translation the source piece that was looked at most."""
    most = mean_cross_attention(probe).argmax(axis=1).tolist()
    return [(piece, probe.source[s]) for piece, s in zip(probe.target[1:], most, strict=False)]


TABLE_COLUMNS = ("step", "sentence", "translation", "looked at most")


def table_of(moments: Iterable[TimeLapseFrame]) -> list[list[str | int]]:
    """A row for each sentence of each moment, for those who show tables."""
    return [
        [
            moment.step,
            probe.sentence,
            probe.output,
            " ".join(f"{piece}→{source}" for piece, source in most_attended(probe)),
        ]
        for moment in moments
        for probe in moment.probes
    ]


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    """The files by their steps, in order."""
    try:
        found = [(int(name[1]), path) for path in folder.iterdir() if (name := _match(path))]
    except FileNotFoundError:
        return
    yield from sorted(found)[:MAX_FRAMES]


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)
