"""Load a run's recorded curves into a picture that starts in the middle of the run."""

from dataclasses import replace

from trainer.errors import TrainerError
from trainer.record.record_end import read_record_end
from trainer.runs.folder import RunFolder
from transloom.observe.curves.curves import read_curves
from transloom.observe.terminal.run_picture import RunPicture

CURVE_POINTS = 400
# Number of bytes at the end of the metrics file that are searched for validations (about 150,000
# steps). The thinned curves of a long metrics file lack most validations.
VALIDATIONS_BYTES = 2**26


def take_history(picture: RunPicture, run: RunFolder) -> list[str]:
    """Fill a picture with the thinned curves and the validations of a run's metrics file.

    Returns:
        Descriptions of the problems in the metrics file.
    """
    try:
        curves = read_curves(run.metrics, CURVE_POINTS)
        picture.drawn = curves.points
        end = read_record_end(run.metrics, VALIDATIONS_BYTES)
    except (OSError, TrainerError) as error:
        return [f"{run.metrics} cannot be read: {error}"]
    for scored in curves.validations:
        if end.first_step is None or scored.step < end.first_step:
            picture.take_scores(scored)
    for line in end.validations:
        picture.take_scores(line)
    picture.record = replace(end, validations=end.validations[-1:])
    picture.step = max(picture.step, end.step)
    return [curves.problem] if curves.problem else []
