"""What a run's record already holds, for a picture that begins in the middle of the run."""

from trainer.errors import TrainerError
from trainer.record.line_reader import LineTail
from trainer.record.metrics import readable_lines
from trainer.record.record_end import read_record_end
from trainer.runs.folder import RunFolder
from transloom.observe.curves.curves import Curves, read_curves
from transloom.observe.terminal.run_picture import RunPicture

CURVE_POINTS = 400
TAIL_BYTES = 2**18  # some 400 steps
READ_BYTES = 2**22  # of one look at a record that has grown
# Where validations are looked for: in some 150,000 steps. The curve of a long record lacks most.
VALIDATIONS_BYTES = 2**26


def take_history(picture: RunPicture, run: RunFolder) -> LineTail:
    """Fill a picture with the curves of a record, thinned, and with the lines at its end.

    Returns:
        The reader of the lines that follow.
    """
    tail = LineTail(run.metrics, tail_bytes=TAIL_BYTES, read_bytes=READ_BYTES)
    try:
        curves = read_curves(run.metrics, CURVE_POINTS)
        _take_curves(picture, curves)
        _take_validations(picture, curves, run)
        for line in readable_lines(tail.read().content)[0]:
            picture.line(line)
    except (OSError, TrainerError) as error:
        picture.problems.append(f"{run.metrics} cannot be read: {error}")
    return tail


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
            picture.take_scores(step, scores)
    for line in end.validations:
        picture.line(line)
