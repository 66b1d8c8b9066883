"""Exports of a record to CSV and TensorBoard, read back by these formats' readers."""

import csv
import json
import sys
from pathlib import Path

import pytest
from support.files import command_faults
from support.files.file_faults import Fault
from support.quality.memory import at_most
from support.records.lines import (
    COMPARED,
    COUNTED,
    SPIKE_FIELDS,
    skipped_line,
    train_line,
    validation_line,
)
from typer.testing import CliRunner

from run_store.errors import RunError, RunMismatchError
from run_store.folder import RunFolder, RunMetadata
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import Preempted, Resized, Resumed, TrainLine, ValidationLine
from transloom.cli.app import app
from transloom.observe import exports
from transloom.observe.exports import TABLES, export_metrics

HOSTILE = 'a "quoted", text | <b>\u202e=1+1\nof two lines'
LINES = [
    Resized(step=0, from_ranks=1, to_ranks=2),
    train_line(1, loss=0.1 + 0.2, target_tokens_seen=2**40 + 1, goodput=1 / 3),
    train_line(2, other_sums={"z_loss": 1e-300, "moe": 2.0}),
    validation_line(2, loss=2.0, bleu=30.1, text=HOSTILE),
    skipped_line(3, slots=[1, 4], ranks=[0, 2], **SPIKE_FIELDS),
    Resumed(step=3, from_step=2, settings_changed={"keep_last": [1, 2]}),
    train_line(4, **COMPARED),
    Preempted(step=4),
]


def make_run(folder, lines):
    folder.mkdir()
    run = RunFolder(folder)
    card = RunMetadata(id="abcd1234", name=folder.name, dataset_identity="", identity={})
    run.card_path.write_text(card.model_dump_json())
    run.metrics.write_text("".join(line.to_json() + "\n" for line in lines))
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", LINES)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train_rows(lines):
    """Return the fields of each training line, with slow ranks as in JSON."""
    return [
        {column: getattr(line, column) for column in TABLES["train"]}
        | line.model_dump(include={"slow_ranks"})
        for line in lines
        if isinstance(line, TrainLine)
    ]


def test_csv_files_contain_all_digits_of_all_lines(run, tmp_path):
    export_metrics(run, "csv", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "train.csv")
    texts = {"data_digest"}  # the other columns are numbers, or JSON
    found = [
        {name: text if name in texts else json.loads(text or "null") for name, text in row.items()}
        for row in rows
    ]
    assert found == train_rows(LINES)
    validations = rows_of(tmp_path / "out" / "validations.csv")
    assert {row["score"]: (row["step"], row["value"]) for row in validations} == {
        "loss": ("2", "2.0"),
        "perplexity": ("2", "7.38905609893065"),
        "bleu": ("2", "30.1"),
    }
    assert [row["more_is_better"] for row in validations] == ["false", "false", "true"]
    (sample,) = rows_of(tmp_path / "out" / "samples.csv")
    assert sample["translation"] == HOSTILE
    (skipped,) = rows_of(tmp_path / "out" / "skipped.csv")
    assert (skipped["cause"], skipped["loss"], skipped["loss_threshold"]) == (
        "spike",
        "9.5",
        "4.25",
    )
    assert (skipped["slots"], skipped["ranks"], skipped["in_a_row"]) == ("[1, 4]", "[0, 2]", "1")
    events = rows_of(tmp_path / "out" / "events.csv")
    assert [(row["step"], row["event"]) for row in events] == [
        ("0", "resized"),
        ("3", "resumed"),
        ("4", "preempted"),
    ]
    assert json.loads(events[1]["details"])["settings_changed"] == {"keep_last": [1, 2]}


def test_numbers_above_64_bits_are_exported(tmp_path):
    """A step of 16 million tokens with 400 billion parameters needs over 2**64 operations."""
    counts = {"model_flops": 2**65, "hardware_flops": 2**65 + 2**13}
    folder = make_run(tmp_path / "run", [train_line(1, **COUNTED | counts), train_line(2)])
    export_metrics(folder, "csv", tmp_path / "csv")
    counted, without = rows_of(tmp_path / "csv" / "train.csv")
    assert {name: int(counted[name]) for name in counts} == counts
    assert without["model_flops"] == ""


def test_tensorboard_shows_every_number_of_the_record(run, tmp_path):
    from markdown import markdown
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    exported = export_metrics(run, "tensorboard", tmp_path / "out")
    assert exported.rows == {"events": len(LINES)}
    events = EventAccumulator(str(tmp_path / "out"), size_guidance={"tensors": 0}).Reload()

    def values(tag):
        return [
            (e.step, e.wall_time, make_ndarray(e.tensor_proto).item()) for e in events.Tensors(tag)
        ]

    lines = [line for line in LINES if isinstance(line, TrainLine)]
    values_by_name = {name: getattr(lines[-1], name) for name in TABLES["train"]}
    numbers = {name for name, value in values_by_name.items() if isinstance(value, int | float)}
    for name in numbers - {"step", "time"}:
        expected = [
            (line.step, line.time, getattr(line, name))
            for line in lines
            if getattr(line, name) is not None
        ]
        tag = f"train/{name}"
        assert (values(tag) if expected else []) == expected, name
    assert values("train/other_sums/z_loss") == [(2, 1002.0, 1e-300)]
    assert values("validation/bleu") == [(2, 1002.0, 30.1)]
    assert values("skipped/in_a_row")[0][2] == 1
    texts = {tag for tag in events.Tags()["tensors"] if tag.endswith("text_summary")}
    assert {tag.removesuffix("/text_summary") for tag in texts} == {
        "event/resized",
        "event/resumed",
        "event/preempted",
        "skipped/slots",
        "validation/samples",
    }
    (shown,) = events.Tensors("validation/samples/text_summary")
    (text,) = make_ndarray(shown.tensor_proto)
    assert text.decode().count("\n") == 2, "a sample ends its row"
    table = markdown(text.decode(), extensions=["markdown.extensions.tables"])  # like TensorBoard
    assert table.count("<td>") == 3
    assert "\\u202e" in text.decode()


@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_an_export_is_not_overwritten_unless_forced(run, tmp_path, to):
    folder = tmp_path / "out"
    first = export_metrics(run, to, folder)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(RunError, match=r"already has an export\. .* --force"):
        export_metrics(run, to, folder)
    with (run / "metrics.jsonl").open("a") as record:
        record.write(train_line(5).to_json() + "\n")
    again = export_metrics(run, to, folder, replace=True)
    assert (first.last_step, again.last_step) == (4, 5)
    assert len(list(folder.iterdir())) == len(before)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


@pytest.mark.long
@pytest.mark.parametrize("fault", [Fault.EXIT, Fault.POWER])
@pytest.mark.parametrize("to", command_faults.EXPORTS)
def test_a_kill_at_any_operation_leaves_the_old_or_the_new_export(fault_server, to, fault):
    found = fault_server.run(command_faults.strike_everywhere, fault_server.folder, to, fault)
    assert (found[0], found[-1]) == (1, 2)
    assert len(found) > 10  # faults at this number of operations were tested
    assert found == sorted(found, key=[1, None, 2].index)
    assert found.count(None) <= 1  # killed between the two renames


@pytest.mark.parametrize("there", ["file", "folder", "export with something else", "link"])
def test_force_never_replaces_files_that_are_not_exports(run, tmp_path, there):
    folder = tmp_path / "out"
    if there == "file":
        folder.write_text("mine")
    elif there == "link":
        export_metrics(run, "csv", tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    elif there == "folder":
        folder.mkdir()
    else:
        export_metrics(run, "csv", folder)
        (folder / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="is not an export of metrics"):
        export_metrics(run, "csv", folder, replace=True)
    if there == "export with something else":
        assert (folder / "thesis.tex").read_text() == "mine"


def test_the_export_of_a_damaged_record_leaves_no_files(run, tmp_path):
    with (run / "metrics.jsonl").open("a") as record:
        record.write('{"version": 2, "kind": "strange"}\n')
    with pytest.raises(RunError):
        export_metrics(run, "csv", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_an_incomplete_last_line_is_not_exported(run, tmp_path):
    with (run / "metrics.jsonl").open("a") as record:
        record.write(train_line(5).to_json())
    assert export_metrics(run, "csv", tmp_path / "out").last_step == 4


@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_an_export_reports_its_rows_and_last_step(run, tmp_path, to):
    exported = export_metrics(run, to, tmp_path / "out")
    assert (exported.name, exported.last_step) == ("run", 4)
    if to == "csv":
        expected = {"train": 3, "skipped": 1, "validations": 3, "samples": 1, "events": 3}
        assert exported.rows == expected


@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_an_empty_record_gives_an_export_without_rows(tmp_path, to):
    exported = export_metrics(make_run(tmp_path / "run", []), to, tmp_path / "out")
    assert exported.last_step is None
    assert set(exported.rows.values()) <= {0}


def test_csv_lines_end_without_carriage_returns(run, tmp_path):
    export_metrics(run, "csv", tmp_path / "out")
    files = list((tmp_path / "out").glob("*.csv"))
    assert files
    assert not any(b"\r" in file.read_bytes() for file in files)


def test_progress_of_the_export_is_reported_in_bytes(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "LINES_PER_REPORT", 3)
    reports = []
    export_metrics(run, "csv", tmp_path / "out", lambda *report: reports.append(report))
    ends = [len(line.to_json()) + 1 for line in LINES]
    size = sum(ends)
    assert reports == [(sum(ends[:n]), size) for n in (1, 4, 7)] + [(size, size)]


def test_lines_recorded_during_an_export_are_not_exported(run, tmp_path):
    record = run / "metrics.jsonl"
    before = record.stat().st_size

    def go_on(done, total):
        with record.open("a") as file:
            file.write(train_line(5).to_json() + "\n")

    exported = export_metrics(run, "csv", tmp_path / "out", go_on)
    assert record.stat().st_size > before
    assert exported.last_step == 4


def test_exporting_a_run_without_a_record_is_refused(run, tmp_path):
    (run / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match=r"has no metrics\.jsonl yet"):
        export_metrics(run, "csv", tmp_path / "out")
    with pytest.raises(RunMismatchError):
        export_metrics(tmp_path, "csv", tmp_path / "out")


@pytest.mark.long
@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_memory_does_not_grow_with_the_record(tmp_path, to):
    export_metrics(make_run(tmp_path / "warm", LINES), to, tmp_path / "warm-out")  # imports
    run = make_run(tmp_path / "run", (train_line(step) for step in range(1, 2001)))
    with at_most(3_000_000):  # all lines as objects would take 6 MB
        exported = export_metrics(run, to, tmp_path / "out")
    assert exported.last_step == 2000


def test_a_missing_tensorboard_package_is_reported_with_the_remedy(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(RunError, match=r"pip install 'tensorboard[^ ]+'"):
        export_metrics(run, "tensorboard", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_metrics_writes_to_the_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export-metrics", "run", "--to", "csv"])
    assert result.exit_code == 0, result.output
    assert "run-csv has the record of run up to step 4: 3 rows in train" in result.output
    result = CliRunner().invoke(
        app, ["export-metrics", "run", "--to", "csv", "--force", "-o", "run-csv", "--json"]
    )
    told = json.loads(result.stdout)
    assert (told["folder"], told["rows"]["train"]) == ("run-csv", 3)
    assert Path("run-csv/train.csv").is_file()


def test_read_metrics_returns_the_lines_that_were_written(run):
    assert read_metrics(run / "metrics.jsonl") == LINES
    assert any(isinstance(line, ValidationLine) for line in LINES)
