"""`transloom train`: only the owner of a run writes into its folder."""

import io
from pathlib import Path

import pytest
from support.recipes import tiny_recipe
from support.records.run_folders import opened_run

from foundation.terminal import Terminal
from run_store import lease as lease_module
from run_store.errors import LeaseLostError, RunInUseError
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.record.log import ENDED, INTERRUPTED, last_entries
from run_store.record.run_status import run_status_of
from transloom.observe.terminal.display import LoggingListener, PlainLines


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("inline", [True, False])
def test_train_writes_nothing_to_a_run_that_is_in_use(inline_runs, phrasebook, monkeypatch, inline):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    run = RunFolder(inline_runs.folder / "used")
    recipe = tiny_recipe(phrasebook)
    with Lease(run.path):
        opened_run(run.path, recipe)
        before = contents(run.path)
        with pytest.raises(RunInUseError):
            inline_runs.train("used", inline=inline)
        assert contents(run.path) == before
    assert run_status_of(run.path).state == "unknown"  # no process has written its status


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def audience(run: RunFolder) -> LoggingListener:
    return LoggingListener(PlainLines(Terminal(file=io.StringIO()), "title", 1), run)


def texts(run: RunFolder) -> list[str]:
    return [entry.text for entry in last_entries(run.log)]


def test_notices_from_before_the_run_is_owned_are_logged_later(run, audience):
    audience.notice("the former owner is silent")
    assert not run.log.exists()
    with audience.logging():
        audience.notice("it trains")
    audience.notice("somebody else may own it")
    assert texts(run) == ["the former owner is silent", "it trains"]


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (OSError("disk"), [f"{ENDED}disk"]),
        (KeyboardInterrupt(), [INTERRUPTED]),
        (LeaseLostError("it belongs to another process"), []),  # that process owns the log
    ],
)
def test_the_log_says_why_a_run_ended_only_while_the_run_is_owned(run, audience, error, kept):
    with pytest.raises(type(error)), audience.logging():
        raise error
    assert texts(run) == kept
