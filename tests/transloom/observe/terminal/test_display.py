"""The display of a run in a terminal or a pipe."""

import io
import re

import pytest
from support.records.lines import COUNTED, rank_hung, train_line
from support.records.run_folders import made_run

from foundation.terminal import Terminal
from run_store.folder import RunFolder
from run_store.record.metrics_lines import Resized, Resumed, Sample, ValidationLine
from run_store.record.run_status_model import LossForm
from trainer.tasks.translation import translation_scores
from transloom.observe.terminal.display import (
    LiveStatus,
    LoggingListener,
    PlainLines,
    listener_for,
)

TRAIN = train_line(3, loss=2.5, target_tokens_per_second=8000.0)
VALIDATION = ValidationLine(
    step=3,
    scores=translation_scores(2.0, 12.3),
    seconds=1.0,
    samples=[Sample(source="je suis [là]", reference="I am there", translation="I am [bold]")],
)
EVENT = Resumed(step=3, from_step=2)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "50")


def console(terminal=True, width=120):
    return Terminal(file=io.StringIO(), force_terminal=terminal, width=width)


def shown(tmp_path, terminal):
    where, run = console(terminal), made_run(tmp_path / "run", TRAIN, VALIDATION)
    with listener_for(where, "runs/x: a title", 10, RunFolder(run)) as audience:
        for line in (TRAIN, VALIDATION, EVENT):
            audience.line(line)
        audience.notice("resumed: from step 2")
        audience.notice("checkpoint of step 3 is complete")
    return where.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_shows_numbers_scores_and_notices(tmp_path, terminal):
    text = shown(tmp_path, terminal)
    for part in ("runs/x: a title", "2.500", "perplexity", "7.39", "BLEU", "12.3"):
        assert part in text
    assert "resumed: from step 2" in text
    assert "checkpoint of step 3 is complete" in text


def test_the_status_is_shown_once_the_run_exists(tmp_path):
    where, run = console(), tmp_path / "run"
    with listener_for(where, "title", 20, RunFolder(run)) as audience:
        audience.notice("Ray is started")
        before = where.file.getvalue()
        made_run(run, train_line(3, **COUNTED))
    after = where.file.getvalue().removeprefix(before)
    assert "problem" not in before
    text = " ".join(re.sub(r"\x1b\[[\d;?]*\w", "", after).split())
    assert "state stopped step 3 of 20 (15.0%) " in text
    assert "Ray is started" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_flops_and_mfu_are_shown_only_if_recorded(tmp_path, terminal):
    def text(name, **fields):
        where, lines = console(terminal), [train_line(n, **fields) for n in (2, 3)]
        run = made_run(tmp_path / name, *lines)
        with listener_for(where, "title", 10, RunFolder(run)) as audience:
            audience.line(lines[-1])
        return " ".join(re.sub(r"\x1b\[[\d;?]*\w", "", where.file.getvalue()).split())

    counted = text("counted", **COUNTED)
    assert "model TFLOP/s " in counted
    assert "MFU " in counted
    without_peak = text("without", **COUNTED | {"mfu": None})
    assert "FLOP/s" in without_peak
    assert "MFU" not in without_peak
    assert "FLOP/s" not in text("uncounted")


def test_plain_lines_name_each_loss_and_the_decoding():
    where = console(terminal=False, width=300)
    with PlainLines(where, "title", 1, LossForm("label", smooths_labels=True)) as audience:
        audience.line(train_line(1, loss=1.168, nll=0.07))
        audience.line(VALIDATION)
    text = where.file.getvalue()
    assert "training loss (smoothed) 1.168  training NLL 0.070  " in text
    assert "  speed 20 labels/s  " in text
    assert "validation loss 2.000, perplexity 7.39, BLEU 12.3 (greedy)\n" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_sentences_with_brackets_are_not_markup(tmp_path, terminal):
    text = shown(tmp_path, terminal)
    assert "je suis [là]" in text
    assert "I am [bold]" in text


@pytest.mark.parametrize(
    ("terminal", "term", "kind"),
    [
        (True, "xterm", LiveStatus),
        (True, "dumb", PlainLines),  # cannot redraw rows
        (False, "xterm", PlainLines),
    ],
)
def test_only_a_terminal_that_can_redraw_has_a_live_status(
    tmp_path, monkeypatch, terminal, term, kind
):
    monkeypatch.setenv("TERM", term)
    assert isinstance(listener_for(console(terminal), "", 1, RunFolder(tmp_path)), kind)


def test_a_changed_number_of_ranks_is_reported_once():
    where = console(terminal=False)
    changed = {"numerics_changed": {"ranks": [2, 3]}, "promise": "same data, but …"}
    with PlainLines(where, "title", 1000) as audience:
        audience.line(Resumed(step=3, from_step=2, **changed))
        audience.line(Resized(step=3, from_ranks=2, to_ranks=3))
    assert where.file.getvalue().count("3 ranks") == 1


def test_a_hang_is_reported_only_by_its_error(tmp_path):
    run = RunFolder(tmp_path)
    where = console(terminal=False)
    with PlainLines(where, "title", 1000) as lines:
        audience = LoggingListener(lines, run)
        with audience.logging():
            audience.line(rank_hung(3))
            audience.notice("Rank 1 hangs")
    for text in (where.file.getvalue(), run.log.read_text()):
        assert "Hang: " not in text
        assert "Rank 1 hangs" in text


def test_plain_lines_do_not_show_every_step():
    where = console(terminal=False)
    with PlainLines(where, "title", 1000) as audience:
        for step in range(1, 500):
            audience.line(train_line(step))
    assert where.file.getvalue().count("\nstep ") == 1


def test_a_resumed_run_is_shown_with_its_previous_curve(tmp_path):
    run = made_run(tmp_path / "run", *(train_line(n, loss=9.0 - n) for n in range(1, 9)))
    where = console()
    with listener_for(where, "runs/x", 10, RunFolder(run)):
        pass  # the last refresh shows the complete status
    assert "█▇▆▅▄▃▂▁" in where.file.getvalue()
