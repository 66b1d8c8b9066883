"""What a run's record already holds, for a picture that begins in the middle of the run."""

from trainer.errors import TrainerError
from trainer.record.record_end import read_record_end
from trainer.record.record_follower import NewLines, RecordFollower
from trainer.runs.folder import RunFolder
from transloom.observe.curves.curves import Curves, read_curves
from transloom.observe.terminal.run_picture import RunPicture

CURVE_POINTS = 400
TAIL_BYTES = 2**18  # some 400 steps
# Where validations are looked for: in some 150,000 steps. The curve of a long record lacks most.
VALIDATIONS_BYTES = 2**26


def take_history(picture: RunPicture, run: RunFolder) -> RecordFollower:
    """Fill a picture with the curves of a record, thinned, and with the lines at its end.

    Returns:
        What reads the lines that follow.
    """
    follower = RecordFollower(run.metrics, TAIL_BYTES)
    try:
        curves = read_curves(run.metrics, CURVE_POINTS)
        _take_curves(picture, curves)
        _take_validations(picture, curves, run)
        take_lines(picture, follower.look())
    except (OSError, TrainerError) as error:
        picture.problems.append(f"{run.metrics} cannot be read: {error}")
    return follower


def take_lines(picture: RunPicture, new: NewLines) -> None:
    """Take lines that were appended."""
    for line in new.lines:
        picture.line(line)


def _take_curves(picture: RunPicture, curves: Curves) -> None:
    columns = curves.columns
    for name, series in (
        ("loss", picture.loss),
        ("nll", picture.nll),
        ("target_tokens_per_second", picture.tokens_per_second),
        ("tflops_per_second", picture.tflops_per_second),
        ("grad_norm_max", picture.grad_norm),
        ("learning_rate", picture.learning_rate),
    ):
        for step, value in zip(columns["step"], columns[name], strict=True):
            series.add(step, value)
    if curves.problem:
        picture.problems.append(curves.problem)


def _take_validations(picture: RunPicture, curves: Curves, run: RunFolder) -> None:
    end = read_record_end(run.metrics, VALIDATIONS_BYTES)
    for step, scores in curves.validations:
        if end.first_step is None or step < end.first_step:
            for name, score in scores.items():
                picture.score(step, name, score)
    for line in end.validations:
        picture.line(line)
