"""Export a metrics file as TensorBoard events. Only this module imports tensorboard.

    train/loss, …            each number of a training step's line
    train/other_sums/NAME    each entry of the line's `other_sums`, and likewise of `observed`
    skipped/in_a_row, …      each number of a skipped step's line
    skipped/slots            the cause of a skipped step, with its slots and ranks, as text
    validation/bleu, …       each score of a validation
    validation/samples       the sample translations of a validation, as text
    event/NAME               the details of an event, as text

Numbers are stored in double precision, so that token counts keep all their digits. tensorboard is
an extra (`tensorboard`) and is imported on the first export.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from foundation.untrusted_text import visible
from trainer.record.metrics_lines import Line, SkippedLine, TrainLine, ValidationLine
from transloom.observe.exports.tables import details_of

# Fields of a line that are not exported as values. Step and time are properties of the event
# itself.
_AXES = ("version", "step", "time")


class TensorBoardEvents:
    """Writer of the lines of a run's metrics file to a TensorBoard event file, in a given folder.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import FileWriter
        from torch.utils.tensorboard.summary import scalar, text

        self._summary, self._text = Summary, text
        self._scalar = partial(scalar, new_style=True, double_precision=True)
        self._writer = FileWriter(str(folder))
        self._before_the_first: list[Line] = []
        self._time: float | None = None
        self.rows = {"events": 0}

    def add(self, line: Line) -> None:
        if isinstance(line, TrainLine):
            self._time = line.time
        elif self._time is None:  # only training lines have a time, so others wait for the first
            self._before_the_first.append(line)
            return
        self._write_those_before()
        self._write(line)

    def close(self) -> None:
        """Write the remaining lines and close the file."""
        self._time = self._time or 0.0
        self._write_those_before()
        self._writer.close()

    def _write_those_before(self) -> None:
        for line in self._before_the_first:
            self._write(line)
        self._before_the_first.clear()

    def _write(self, line: Line) -> None:
        summary = self._summary()
        for tag, number in numbers_of(line):
            summary.MergeFrom(self._scalar(tag, number))
        for tag, words in texts_of(line):
            summary.MergeFrom(self._text(tag, words))
        self._writer.add_summary(summary, line.step, self._time)
        self.rows["events"] += 1


def numbers_of(line: Line) -> Iterator[tuple[str, float]]:
    """Yield the known numbers of a line, each with its TensorBoard tag."""
    if isinstance(line, ValidationLine):
        yield "validation/seconds", line.seconds
        for name, score in line.scores.items():
            if score.value is not None:
                yield f"validation/{name}", score.value
    elif isinstance(line, (TrainLine, SkippedLine)):
        for name in type(line).model_fields:
            value = getattr(line, name)
            if isinstance(value, (int, float)) and name not in _AXES:
                yield f"{line.kind}/{name}", value
            elif isinstance(value, dict):
                yield from ((f"{line.kind}/{name}/{entry}", value[entry]) for entry in value)


def texts_of(line: Line) -> Iterator[tuple[str, str]]:
    """Yield the texts of a line as Markdown, each with its TensorBoard tag."""
    if isinstance(line, ValidationLine):
        if line.samples:
            rows = [(s.source, s.reference, s.translation) for s in line.samples]
            yield "validation/samples", _markdown(("source", "reference", "translation"), rows)
    elif isinstance(line, SkippedLine):
        yield "skipped/slots", f"{line.cause}: slots {line.slots} on ranks {line.ranks}"
    elif not isinstance(line, TrainLine):
        yield f"event/{line.event}", visible(details_of(line))


def _markdown(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Escape a text for a Markdown table cell, so that it ends neither the cell nor the row."""
    return visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
