"""Time-lapse of a run: the network's outputs for the probe sentences at some steps.

    time-lapse/step-00000096.json    a `TimeLapseFrame`: the step, and a `Probe` for each sentence

The step number alone determines whether a step has a frame (`is_probed`), so a resumed run has the
same frames as an uninterrupted run. Each frame is a separate file. If a run repeats steps after a
restart, it replaces the files of these steps.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from data_pipeline.storage.regular_files import read_regular, write_atomically
from foundation.file_model import Count, FileModel, JsonLimits, error_summary
from foundation.untrusted_text import visible_in_json
from run_store.config import MAX_PROBES
from run_store.record.probe import FULL, Probe

# Limits of a frame's file. Each of its few probes has at most 64 kB of attention weights, and at
# most 64 kB of texts.
LIMITS = JsonLimits(bytes=2**20, values=20_000)
MAX_FRAMES = 130  # more than the number of steps below 2**63 that have a frame
_NAME = re.compile(r"step-(\d{8,19})\.json")


class TimeLapseFrame(FileModel):
    """Probes of the network after a step, or before the first step if `step` is 0."""

    version: Literal[1] = 1
    step: Count
    probes: Annotated[tuple[Probe, ...], Field(max_length=MAX_PROBES)]

    def to_json(self) -> str:
        return visible_in_json(json.dumps(self.model_dump(mode="json"), ensure_ascii=False))


@dataclass(frozen=True)
class TimeLapse:
    """Frames that were read from a run's time-lapse.

    Attributes:
        moments: the frames, in the order of their steps.
        problems: descriptions of unreadable files.
    """

    moments: tuple[TimeLapseFrame, ...] = ()
    problems: tuple[str, ...] = ()


def is_probed(step: int) -> bool:
    """Return whether a step has a frame.

    These steps are 0, the powers of two, and three times each power of two: 0, 1, 2, 3, 4, 6, 8,
    12, 16, …
    """
    third, rest = divmod(step, 3)
    return _is_power_of_two(step) or step == 0 or (rest == 0 and _is_power_of_two(third))


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def write_frame(folder: Path, moment: TimeLapseFrame) -> Path:
    """Write a frame and sync it to the disk.

    Raises:
        OSError: the write failed; an older file of this step is unchanged.
    """
    folder.mkdir(exist_ok=True)
    path = path_of(folder, moment.step)
    write_atomically(path, moment.to_json() + "\n")
    return path


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.json"


def read_frame(path: Path) -> TimeLapseFrame:
    """Return the frame in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a frame; the message names it.
    """
    try:
        return TimeLapseFrame.from_json(read_regular(path, LIMITS.bytes), LIMITS)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a frame of a time-lapse: {error_summary(error)}"
        ) from error


def read_time_lapse(folder: Path, last_step: int | None = None) -> TimeLapse:
    """Return the frames up to the step `last_step`, or all frames if `last_step` is None.

    The result is empty if there is no folder.

    Raises:
        OSError: the path exists and is not a readable folder.
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
    """Return the mean of the cross-attention over all heads and layers, between 0 and 1.

    Its shape is (decoding steps, source pieces).
    """
    maps = [one.bytes_hts for one in probe.attention if one.place.endswith("cross_attention")]
    mean: np.ndarray = np.concatenate(maps).mean(axis=0) / FULL
    return mean


def most_attended(probe: Probe) -> list[tuple[str, str]]:
    """Return each piece of the translation with the source piece to which it attends most."""
    most = mean_cross_attention(probe).argmax(axis=1).tolist()
    return [(piece, probe.source[s]) for piece, s in zip(probe.target[1:], most, strict=False)]


TABLE_COLUMNS = ("step", "sentence", "translation", "looked at most")


def table_of(moments: Iterable[TimeLapseFrame]) -> list[list[str | int]]:
    """Return the rows of a table with `TABLE_COLUMNS`: one row for each sentence of each frame."""
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
    """Yield the step and the file of each frame, in the order of the steps."""
    try:
        found = [(int(name[1]), path) for path in folder.iterdir() if (name := _match(path))]
    except FileNotFoundError:
        return
    yield from sorted(found)[:MAX_FRAMES]


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)
