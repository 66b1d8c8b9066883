"""Load a run's recorded curves into a picture that starts in the middle of the run."""

from dataclasses import replace

from trainer.errors import TrainerError
from trainer.record.record_end import read_record_end
from trainer.record.run_status import RECORD_BYTES_IN_LIST
from trainer.runs.folder import RunFolder
from transloom.observe.curves.curves import read_curves
from transloom.observe.terminal.run_picture import RunPicture

CURVE_POINTS = 400


def take_history(picture: RunPicture, run: RunFolder) -> list[str]:
    """Fill a picture with the thinned curves and the validations of a run's metrics file.

    Returns:
        Descriptions of the problems in the metrics file and the curve file.
    """
    try:
        curves = read_curves(run, CURVE_POINTS)
        end = read_record_end(run.metrics, RECORD_BYTES_IN_LIST)
    except (OSError, TrainerError) as error:
        return [f"{run.metrics} cannot be read: {error}"]
    picture.drawn = curves.points
    for line in (validations := curves.lines.validations):
        picture.take_scores(line)
    picture.record = replace(end, validations=tuple(validations[-1:]))
    picture.step = max(picture.step, end.step)
    return [curves.problem] if curves.problem else []
