"""What a person sees of a run."""

import io

import pytest
from rich.console import Console
from support.records.lines import train_line

from cluster.views.display import LiveDisplay, PlainLines, audience_for
from trainer.tasks.translation import translation_scores
from trainer.tracking.records import Resumed, Sample, ValidationLine

TRAIN = train_line(3, loss=2.5, target_tokens_per_second=8000.0)
VALIDATION = ValidationLine(
    step=3,
    scores=translation_scores(2.0, 12.3),
    seconds=1.0,
    samples=[Sample(source="je suis [là]", reference="I am there", translation="I am [bold]")],
)
EVENT = Resumed(step=3, from_step=2)


def shown(terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, color_system=None)
    with audience_for(console, "runs/x: a title", 10) as audience:
        for line in (TRAIN, VALIDATION, EVENT):
            audience.line(line)
        audience.notice("checkpoint of step 3 is complete")
    return output.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_numbers_translations_and_notices_are_shown(terminal):
    text = shown(terminal)
    for part in (
        "runs/x: a title",
        "loss 2.500",
        "8,000 target tokens/s",
        "perplexity 7.39",
        "BLEU 12.3",
    ):
        assert part in text
    assert "resumed: from step 2" in text
    assert "checkpoint of step 3 is complete" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_sentences_are_text_and_not_markup(terminal):
    text = shown(terminal)
    assert "je suis [là]" in text
    assert "I am [bold]" in text


def test_a_terminal_has_a_live_display_and_a_file_plain_lines():
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(audience_for(terminal, "", 1), LiveDisplay)
    assert isinstance(audience_for(Console(file=io.StringIO()), "", 1), PlainLines)


def test_plain_lines_do_not_show_every_step():
    output = io.StringIO()
    with PlainLines(Console(file=output), "title", 1000) as audience:
        for step in range(1, 500):
            audience.line(train_line(step))
    assert output.getvalue().count("\nstep ") == 1
