"""`transloom export-metrics`: with a bar, since a long record takes minutes."""

from pathlib import Path

from cluster.terminal import Terminal, percentages
from foundation.wording import counted, listed
from transloom.observe.exports.exporting import Exported, Format, export_metrics


def export_run_metrics(
    run: Path, to: Format, folder: Path, console: Terminal, *, replace: bool
) -> Exported:
    """Write the record of a run into a folder; see `transloom.observe.exports.exporting`."""
    with percentages(console) as progress:
        task = progress.add_task(f"record of {run.name}", total=None)
        return export_metrics(
            run,
            to,
            folder,
            lambda done, total: progress.update(task, completed=done, total=total),
            replace=replace,
        )


def in_words(exported: Exported, folder: Path) -> str:
    """What was exported, in a sentence."""
    if exported.format == "tensorboard":
        looked_at = f"tensorboard --logdir {folder}"
        what = f"{counted(exported.rows['events'], 'event')}; look at them with: {looked_at}"
    else:
        what = listed(f"{counted(count, 'row')} in {name}" for name, count in exported.rows.items())
    return f"{folder} has the record of {exported.name} to step {exported.last_step}: {what}"
