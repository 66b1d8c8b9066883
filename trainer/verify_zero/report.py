"""Report of the whole grid, as JSON and as a Markdown table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

from data_pipeline.dataset.manifest import open_dataset
from foundation.wording import counted
from trainer.errors import EngineError
from trainer.recipe import TrainingRecipe
from trainer.verify_zero.session import CellVerdict, Session
from trainer.verify_zero.zero_grid import STAGES, Work, cells

LIBRARIES = ("deepspeed", "torch")
HEADER = """\
| ranks | stage | overlap_comm | buckets | offload | hpZ | result |
|--:|--:|---|---|---|---|---|"""


@dataclass(frozen=True)
class ZeroReport:
    """Verdicts of all cells, and the versions and devices that computed them.

    Attributes:
        versions: the versions of DeepSpeed and torch.
        device: the type of the ranks' devices.
        parameters: the number of trained weights.
    """

    versions: dict[str, str]
    device: str
    precision: str
    steps: int
    parameters: int
    verdicts: list[CellVerdict]

    @property
    def equal(self) -> bool:
        return all(verdict.outcome == "equal" for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        return {"equal": self.equal, **asdict(self)}


def report_of(
    recipe: TrainingRecipe,
    *,
    device: Literal["cpu", "cuda"],
    ranks: Sequence[int] | None,
    stages: Sequence[int] | None,
    steps: int,
    timeout_seconds: float,
    notice: Callable[[str], None],
) -> ZeroReport:
    """Compute the first steps of a recipe in all cells.

    Args:
        recipe: the recipe, with exact numerics.
        device: the type of the ranks' devices.
        ranks: the numbers of ranks, or None for the default.
        stages: the ZeRO stages, or None for all.
        timeout_seconds: the time after which the ranks of a cell are ended.
        notice: receives a line for each cell.

    Raises:
        DatasetError: the dataset is not prepared.
        EngineError: this machine lacks GPUs, the recipe does not support exact numerics, or its
            steps fail in plain torch.
    """
    open_dataset(recipe.data)
    counts = sorted(set(ranks or (1, _gpus() if device == "cuda" else 2)))
    _require_devices(device, counts[-1])
    precision = recipe.engine.precision
    grid = list(cells(counts, sorted(set(stages or STAGES)), precision, offload=device == "cpu"))
    if not grid:
        raise EngineError(
            f"No cell can be compared in {precision}: stage 0 has no fp32 weights in bf16, and "
            "gradients in bf16 can be averaged exactly only on 1, 2, 4, 8, … ranks. Choose other "
            "stages or numbers of ranks, or set engine.precision=fp32"
        )
    session = Session(Work(recipe, steps, counts[-1]), device, timeout_seconds)
    notice(f"{counted(steps, 'step')} in plain torch …")
    reference = session.reference()
    verdicts = []
    for number, cell in enumerate(grid, start=1):
        verdict = session.verdict(cell, reference)
        notice(f"cell {number} of {len(grid)}, {cell.text}: {result_text(verdict)}")
        verdicts.append(verdict)
    versions = {name: version(name) for name in LIBRARIES}
    return ZeroReport(versions, device, precision, steps, reference.elements, verdicts)


def report_text(report: ZeroReport) -> str:
    """Return the report as Markdown, with the verdict in the last line."""
    libraries = ", ".join(f"{name} {found}" for name, found in report.versions.items())
    lines = [
        f"{libraries}, ranks on {report.device}, {report.precision}, "
        f"{counted(report.steps, 'step')}, {counted(report.parameters, 'weight')}",
        "",
        HEADER,
        *map(_row, report.verdicts),
        "",
    ]
    equal = sum(verdict.outcome == "equal" for verdict in report.verdicts)
    cells_text = counted(len(report.verdicts), "cell")
    lines.append(f"{equal} of {cells_text} have the same bits as plain torch after every step.")
    return "\n".join(lines)


def result_text(verdict: CellVerdict) -> str:
    """Return a verdict in words."""
    if verdict.outcome == "different":
        return f"{verdict.what} of {verdict.parameter} differ after step {verdict.step}"
    return f"{verdict.outcome}: {verdict.what}" if verdict.what else verdict.outcome


def _row(verdict: CellVerdict) -> str:
    cell = verdict.cell
    answers = [cell.overlap_comm, cell.small_buckets, cell.offload, cell.hpz]
    overlap, small, offload, hpz = ["yes" if answer else "no" for answer in answers]
    buckets = "small" if small == "yes" else "one"
    settings = ["", "", "", ""] if cell.stage == 0 else [overlap, buckets, offload, hpz]
    result = result_text(verdict).replace("|", "\\|")
    return f"| {cell.ranks} | {cell.stage} | {' | '.join(settings)} | {result} |"


def _require_devices(device: str, ranks: int) -> None:
    if device == "cuda" and ranks > (gpus := _gpus()):
        raise EngineError(
            f"This machine has {counted(gpus, 'GPU')}, too few for {counted(ranks, 'rank')}: give "
            "fewer --ranks, or set cluster.gpus_per_rank=0 to compute on CPUs"
        )


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())
