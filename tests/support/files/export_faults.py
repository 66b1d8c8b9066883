"""Jobs for a `FaultServer`: an export of metrics over a former one, struck at every operation."""

from itertools import count
from pathlib import Path

from support.files.file_faults import ENDED, Fault, struck_child
from support.records.lines import train_line
from trainer.runs.folder import RunFolder, RunMetadata
from transloom.observe.exports import Format, export_metrics


def strike_everywhere(folder: Path, to: Format, fault: Fault) -> list[int | None]:
    """The last step of the export after a fault at the first, second, … operation; None for none.

    After each fault, the same command is given again and must leave nothing but its export.
    """
    run = RunFolder(folder / f"{to}-{fault.name}")
    run.path.mkdir()
    card = RunMetadata(id="abcd1234", name="run", dataset_identity="", identity={})
    run.card_path.write_text(card.model_dump_json())
    found = []
    for k in count(1):
        out = run.path / str(k) / "out"
        out.parent.mkdir()
        run.metrics.write_text(train_line(1).to_json() + "\n")
        export_metrics(run.path, to, out)
        with run.metrics.open("a") as record:
            record.write(train_line(2).to_json() + "\n")

        def job(out: Path = out) -> None:
            export_metrics(run.path, to, out, replace=True)

        code, operations = struck_child(k, fault, job)
        assert code == (ENDED if k <= operations else 0), f"operation {k}: exit code {code}"
        found.append(_last_step(out) if out.exists() else None)
        job()
        assert _last_step(out) == 2, k
        assert [path.name for path in out.parent.iterdir()] == ["out"], k
        if k > operations:
            return found
    raise AssertionError


def _last_step(out: Path) -> int:
    """The last step of an export, of which all files are complete."""
    if (out / "train.csv").exists():
        assert len(list(out.iterdir())) == 5
        return len((out / "train.csv").read_text().splitlines()) - 1
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return max(event.step for event in EventAccumulator(str(out)).Reload().Tensors("train/loss"))
