"""A program that the machine lacks skips a test, but fails it under make lab."""

import pytest
from support.machine_parts import lacks, missing


def test_lacks_names_the_missing_programs(monkeypatch):
    monkeypatch.setattr("support.machine_parts._PATH", "")
    assert lacks("slurm") == "no slurmctld, slurmd, slurmstepd, sbatch, scancel, scontrol here"
    assert lacks("browser") == "no Chromium here"


@pytest.mark.parametrize(
    ("lab", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_a_missing_program_is_a_failure_only_in_the_lab(monkeypatch, lab, outcome):
    monkeypatch.setenv("TRANSLOOM_LAB", lab)
    with pytest.raises(outcome, match="no Chromium here"):
        missing("no Chromium here")
