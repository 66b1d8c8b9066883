"""Names of the folders of checkpoints and averages."""

from pathlib import Path

STEP = "step-"
AVERAGE = "average-of-"


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the folders of complete checkpoints, oldest first."""
    folders = [path for path in checkpoints.glob(f"{STEP}*") if path.name[len(STEP) :].isdecimal()]
    return sorted(folders, key=step_of)


def list_averages(checkpoints: Path) -> list[Path]:
    """Return the folders of averages, sorted by the newest step in each average.

    Training cannot resume from an average.
    """

    def age(path: Path) -> tuple[int, int, str]:
        steps = [int(s) for s in path.name.removeprefix(AVERAGE).split("-") if s.isdecimal()]
        return max(steps, default=0), len(steps), path.name

    return sorted(checkpoints.glob(f"{AVERAGE}*"), key=age)


def folder_name(step: int) -> str:
    """Return the folder name of a complete checkpoint of a step."""
    return f"{STEP}{step:08d}"


def step_of(path: Path) -> int:
    """Return the step in the folder name of a complete checkpoint."""
    return int(path.name.removeprefix(STEP))


def checkpoint_name(path: Path) -> str:
    """Return the value of `--checkpoint` for a folder: a step, or the name of an average."""
    return path.name if path.name.startswith(AVERAGE) else str(step_of(path))


def average_name(steps: list[int]) -> str:
    """Return the folder name of an average of the checkpoints of these steps."""
    return AVERAGE + "-".join(map(str, steps))
