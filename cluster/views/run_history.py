"""What a run's record already holds, for a picture that begins in the middle of the run."""

from collections.abc import Iterable
from itertools import islice

from cluster.views.run_picture import RunPicture
from trainer.errors import TrainerError
from trainer.runs.folder import RunFolder
from trainer.tracking.curves import read_curves
from trainer.tracking.metrics import read_backwards
from trainer.tracking.record_follower import NewLines, RecordFollower
from trainer.tracking.records import Line, ValidationLine

CURVE_POINTS = 400
TAIL_BYTES = 2**18  # some 400 steps
LINES_BACK = 5_000  # how far the newest samples are looked for


def take_history(picture: RunPicture, run: RunFolder) -> RecordFollower:
    """Fill a picture with the curves of a record, thinned, and with the lines at its end.

    Returns:
        What reads the lines that follow.
    """
    follower = RecordFollower(run.metrics, TAIL_BYTES)
    try:
        _take_curves(picture, run)
        take_lines(picture, follower.look())
        if picture.newest is None and picture.step:
            picture.newest = _newest_validation(read_backwards(run.metrics))
    except (OSError, TrainerError) as error:
        picture.problems.append(f"{run.metrics} cannot be read: {error}")
    return follower


def take_lines(picture: RunPicture, new: NewLines) -> None:
    """Take lines that were appended."""
    for line in new.lines:
        picture.line(line)


def _take_curves(picture: RunPicture, run: RunFolder) -> None:
    curves = read_curves(run.metrics, CURVE_POINTS)
    columns = curves.columns
    for name, series in (
        ("loss", picture.loss),
        ("target_tokens_per_second", picture.tokens_per_second),
        ("grad_norm_max", picture.grad_norm),
        ("learning_rate", picture.learning_rate),
    ):
        for step, value in zip(columns["step"], columns[name], strict=True):
            series.add(step, value)
    for step, scores in curves.validations:
        for name, score in scores.items():
            picture.score(step, name, score)
    if curves.problem:
        picture.problems.append(curves.problem)


def _newest_validation(backwards: Iterable[Line]) -> ValidationLine | None:
    near = islice(backwards, LINES_BACK)
    return next((line for line in near if isinstance(line, ValidationLine)), None)
