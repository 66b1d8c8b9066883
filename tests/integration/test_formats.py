"""Runs of older versions: every released checkpoint format can be resumed forever."""

import json
import shutil
from pathlib import Path

import pytest
from support.runs import Runs

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FORMATS = sorted(path.name for path in FIXTURES.glob("checkpoint-*"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_of_each_format_continues_with_the_recorded_losses(name, tmp_path):
    """Two ranks wrote the checkpoint and one rank reads it; the next ten losses are known."""
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / name))
    runs = Runs(folder / "recipe.yaml", folder, address="")
    result = runs.train("run", f"data.dataset={folder}/dataset", inline=True)
    assert (result.outcome, result.step) == ("finished", 20)
    expected = json.loads((folder / "expected.json").read_text())
    lines = runs.lines("run")[10:]
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, then in zip(lines, expected, strict=True):
        assert line["data_digest"] == then["data_digest"]
        # Other processors and library versions round differently.
        assert line["loss"] == pytest.approx(then["loss"], rel=1e-4)


def test_there_is_a_run_for_each_format():
    assert FORMATS == ["checkpoint-2"]
