"""All commands handle a corpus whose name and text are full of escape sequences.

No escape sequence reaches the terminal: not in answers and displays, nor in errors and pages.
"""

import json
import os
import re
import sys
from types import SimpleNamespace

import pytest
from support.recipes import tiny_values, write_yaml
from support.terminal import Terminal, without_richs_own

from foundation.terminal import print_result, warn
from foundation.untrusted_text import visible
from transloom.cli import app

# Title, clipboard, blinking on red, clearing the screen by C1, order of text, and rich's markup.
ATTACK = (
    "\x1b]0;owned\x07\x1b]52;c;cm0=\x1b\\\x1b[5;41m\x9b2J\x9d0;t\x9c\u202efdp\u2066\x7f\u200b"
    "[red][link=x]here[/link][/nothing]:smile:"
)
NAME = re.sub(r"[/\\]", "", ATTACK)  # for names of files
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069]")


def odd_in(text):
    """Return each control sequence that is not from rich, with its context."""
    left = without_richs_own(text)
    assert "\x1b[5;41m" not in text  # it has the form of rich's own sequences
    assert "\x1b]8;" not in text
    return [left[max(0, m.start() - 30) : m.end() + 30] for m in ODD.finditer(left)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Return corpora, a recipe and a run's folder, each with the attack in name and text."""
    folder = tmp_path_factory.mktemp("strangers")
    rows = [(f"phrase {n} mot {n % 7}", f"sentence {n} word {n % 7}") for n in range(200)]
    rows[5:9] = [(f"{ATTACK} {n}", f"{ATTACK} {n}") for n in range(4)]  # dropped as identical
    rows += [(f"{ATTACK} mot {n}", f"word {n} {ATTACK}") for n in range(8)]
    corpus = folder / f"corpus{NAME}.tsv"
    corpus.write_text("".join(f"{source}\t{target}\n" for source, target in rows))
    heldout = folder / f"heldout{NAME}.tsv"
    heldout.write_text("".join(f"{source}\t{target}\n" for source, target in rows[-8:]))
    values = tiny_values(folder / f"dataset{NAME}", max_steps=2, validate_every_steps=1)
    values["data"] |= {
        "train": [{"name": "corpus", "files": [str(corpus)], "tag": f"<{ATTACK}>"}],
        "validation": {"files": [str(heldout)], "tag": f"<{ATTACK}>"},
        "tests": {"final": {"files": [str(heldout)], "tag": f"<{ATTACK}>"}},
        "cleaning": {"drop_identical": True},
    }
    values["batching"]["max_tokens_per_micro_batch"] = 512
    values["tokenizer"]["vocabulary_size"] = 100
    recipe = write_yaml(folder / f"recipe{NAME}.yaml", values)
    return SimpleNamespace(
        folder=folder,
        corpus=corpus,
        recipe=recipe,
        run=folder / f"run{NAME}",
        dataset=values["data"]["dataset"],
    )


@pytest.fixture
def shown(monkeypatch, stage):
    """Return a function that runs `transloom …` on a terminal and returns output and exit code."""

    def run(*arguments, call=None):
        terminal = Terminal()
        out, err = (
            os.fdopen(os.dup(terminal.program_end), "w", encoding="utf-8") for _ in range(2)
        )
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "excepthook", sys.excepthook)  # so that it is restored at the end
            patch.setenv("TERM", "xterm-256color")
            patch.setenv("COLUMNS", "120")
            patch.setattr(os, "nice", lambda increment: 0)  # because `watch` would slow later tests
            patch.setattr(sys, "argv", ["transloom", *map(str, arguments)])
            patch.chdir(stage.folder)
            try:
                (call or app.main)()
                code = 0
            except SystemExit as exit_:
                code = exit_.code
            finally:
                out.close()
                err.close()
                text = terminal.written()
        return SimpleNamespace(code=code or 0, text=text, odd=odd_in(text))

    return run


def test_all_commands_escape_untrusted_corpus_text(shown, stage):
    """All commands are in one test, because each needs the output of the command before."""
    prepared = shown("prepare", stage.recipe, "--processes", 1)
    assert (prepared.code, prepared.odd) == (0, []), prepared.text
    assert visible(str(stage.dataset)) in without_richs_own(prepared.text)

    info = shown("data", "info", stage.dataset, "--examples")
    assert (info.code, info.odd) == (0, []), info.text
    assert f"'{visible(ATTACK)[:24]}" in without_richs_own(info.text)  # the rest is cut off
    as_json = shown("data", "info", stage.dataset, "--json")
    assert as_json.odd == []
    assert json.loads(as_json.text)["corpora"][0]["tag"] == f"<{ATTACK}>"
    verified = shown("data", "verify", stage.dataset, "--processes", 1)
    assert (verified.code, verified.odd) == (0, []), verified.text

    trained = shown("train", stage.recipe, "--inline", "--run", stage.run)
    assert (trained.code, trained.odd) == (0, []), trained.text
    assert "step 2: validation" in trained.text
    assert visible(ATTACK)[:20] in trained.text
    assert "\x1b[?25l" in trained.text  # the live display was shown
    for name in ("metrics.jsonl", "log.txt"):
        assert ODD.findall((stage.run / name).read_text()) == []
    record = map(json.loads, (stage.run / "metrics.jsonl").read_text().splitlines())
    samples = [sample for line in record for sample in line.get("samples", [])]
    assert any(ATTACK in sample["source"] for sample in samples)

    for arguments in (
        ("checkpoints", "list", stage.run),
        ("checkpoints", "verify", stage.run),
        ("compare", stage.run, stage.run),
        ("evaluate", stage.run, "--processes", 1),
        ("data", "trace", stage.run, "--steps", "1:2"),
        ("watch", stage.run),
        ("watch", stage.folder),
        ("watch", stage.run, "--json"),
        ("stop", stage.run),
    ):
        found = shown(*arguments)
        assert (found.code, found.odd) == (0, []), arguments

    explained = shown("explain", stage.run, f"{ATTACK} </script><b>")
    assert (explained.code, explained.odd) == (0, []), explained.text
    page = (stage.run / "explain.html").read_text()
    assert ODD.findall(page) == []
    assert "\\x1b]52;c;cm0=" in page
    assert "</script><b>" not in page

    sentences = stage.folder / f"sentences{NAME}.txt"
    sentences.write_text(f"{ATTACK}\nmot\n")
    translated = shown("translate", stage.run, sentences, "--processes", 1, "--json")
    assert (translated.code, translated.odd) == (0, []), translated.text


@pytest.mark.parametrize(
    "arguments",
    [
        ("translate", "{run}", "missing{attack}.txt"),
        ("prepare", "missing{attack}.yaml"),
        ("prepare", "{recipe}", "data.{attack}=1"),
        ("prepare", "{recipe}", "data.train.0.files=[missing{attack}.tsv]"),
        ("data", "info", "missing{attack}"),
        ("data", "{attack}"),
        ("data", "info", "--{attack}"),
        ("data", "info", "a", "{attack}"),
        ("checkpoints", "list", "missing{attack}"),
        ("watch", "./missing{attack}"),
        ("fields", "{attack}"),
    ],
    ids=" ".join,
)
def test_errors_of_commands_escape_untrusted_text(shown, stage, arguments):
    names = {"attack": ATTACK, "run": stage.run, "recipe": stage.recipe}
    failed = shown(*(argument.format(**names) for argument in arguments))
    assert failed.code in (1, 2)
    assert failed.odd == []
    assert "error" in failed.text.lower()


def test_a_traceback_of_an_unexpected_error_escapes_untrusted_text(shown, monkeypatch):
    def fail():
        raise ValueError(f"{ATTACK} is wrong")

    def as_python_does():
        monkeypatch.setattr(app, "app", fail)
        try:
            app.main()
        except ValueError as error:
            sys.excepthook(type(error), error, error.__traceback__)

    found = shown(call=as_python_does)
    assert found.odd == []
    assert f"ValueError: {visible(ATTACK)} is wrong" in found.text
    assert "Traceback" in found.text


def test_warnings_and_results_escape_untrusted_text_only_on_a_terminal(shown, capsys):
    found = shown(call=lambda: (warn(ATTACK), print_result(ATTACK)))
    assert found.odd == []
    assert found.text.count(visible(ATTACK)) == 2
    print_result(f"{ATTACK}\r", end="")
    assert capsys.readouterr().out == f"{ATTACK}\r"  # unchanged if not on a terminal


def test_the_check_finds_control_sequences_that_act_on_a_terminal(shown):
    for part in ("\x1b]0;x\x07", "\x9b2J", "\u202e", "\x1b[2J", "\x07", "\x1bc"):
        assert shown(call=lambda part=part: print(part)).odd
