"""Fixtures: runs to serve, and a server of one run."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.runs import Runs
from support.serving.running import RunningServer
from support.serving.spoiling import spoil

STEPS = (20, 40, 60)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, phrasebook: Path) -> Path:
    """Return a run with checkpoints of `STEPS`; the last two have validation scores."""
    folder = tmp_path_factory.mktemp("served")
    values = tiny_values(phrasebook) | {"decoding": SHORT_TRANSLATIONS}
    recipe = write_yaml(folder / "tiny.yaml", values)
    every = ("checkpoints.every_steps=20", "trainer.validate_every_steps=40")
    keep = "checkpoints.keep_last=9"
    Runs(recipe, folder, "").train("run", "trainer.max_steps=60", *every, keep, inline=True)
    return folder / "run"


@pytest.fixture(scope="session")
def run_with(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that copies the run with the checkpoints of the given steps only."""

    def copy(*steps: int) -> Path:
        run = tmp_path_factory.mktemp("copy") / "phrases"
        leave = shutil.ignore_patterns(*(f"step-{n:08d}" for n in STEPS if n not in steps))
        shutil.copytree(trained, run, ignore=leave)
        return run

    return copy


@pytest.fixture(scope="session")
def add(trained: Path) -> Callable[[Path, int], Path]:
    """Return a function that adds a checkpoint to a copy by an atomic rename, as a run does."""

    def add(run: Path, step: int, *, spoilt: bool = False) -> Path:
        place = run / "checkpoints" / f"step-{step:08d}"
        draft = place.with_name(f"draft-{step}")
        shutil.copytree(trained / "checkpoints" / place.name, draft)
        if spoilt:
            spoil(draft)
        return draft.rename(place)

    return add


@pytest.fixture(scope="package")
def run(run_with: Callable[..., Path]) -> Path:
    """Return a run with one checkpoint, which tests must not change."""
    return run_with(40)


@pytest.fixture(scope="package")
def server(run: Path) -> Iterator[RunningServer]:
    """Return a server of the run, whose replica is in this process."""
    with RunningServer(run) as server:
        yield server


@pytest.fixture
def samples(server: RunningServer) -> Callable[[], dict[tuple[str, ...], float]]:
    """Return a function that reads the server's metrics, by name and labels."""

    def read() -> dict[tuple[str, ...], float]:
        text = server.get("/metrics").body.decode()
        families = text_string_to_metric_families(text)  # raises an error for invalid text
        return {
            (one.name, *sorted(one.labels.values())): one.value
            for family in families
            for one in family.samples
        }

    return read
