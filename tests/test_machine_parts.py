"""A part that a machine lacks is a reason to skip a test, but a failure under make lab."""

import pytest
from support.machine_parts import lacks, missing


def test_missing_parts_of_a_machine_are_named(monkeypatch):
    monkeypatch.setattr("support.machine_parts._PATH", "")
    assert lacks("slurm") == "no slurmctld, slurmd, slurmstepd, sbatch, scancel, scontrol here"
    assert lacks("browser") == "no Chromium here"


@pytest.mark.parametrize(
    ("lab", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_a_missing_part_is_a_failure_only_in_the_lab(monkeypatch, lab, outcome):
    monkeypatch.setenv("TRANSLOOM_LAB", lab)
    with pytest.raises(outcome, match="no Chromium here"):
        missing("no Chromium here")
