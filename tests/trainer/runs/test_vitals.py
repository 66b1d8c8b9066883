"""vitals.json: written whole, read within limits, and told from that of a former owner."""

import pytest

from trainer.runs.folder import RunFolder
from trainer.runs.vitals import (
    DataWorkerVitals,
    RankVitals,
    Restart,
    Vitals,
    are_current,
    read_vitals,
    write_vitals,
)

VITALS = Vitals(
    time=1_000_000.5,
    attempt=2,
    ranks=(RankVitals(rank=0, node="a", phase="save", step=7, silent_seconds=0.1),),
    data_workers=(DataWorkerVitals(number=0, alive=False, silent_seconds=12.0),),
    checkpoint_being_written=7,
    restarts=(Restart(time=999_000.0, cause="Rank 1 on node b has died"),),
)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def test_what_is_written_is_read(run):
    assert read_vitals(run) is None
    write_vitals(run, VITALS)
    assert read_vitals(run) == VITALS
    assert [path.name for path in run.path.iterdir()] == ["vitals.json"]


def test_the_state_of_the_supervisor_is_read(run):
    waits = Vitals(time=1.0, supervisor="waiting_for_capacity")
    write_vitals(run, waits)
    assert read_vitals(run) == waits
    assert read_vitals(run).supervisor_state == "waiting_for_capacity"


def test_a_supervisor_whose_ranks_train_has_the_state_training(run):
    write_vitals(run, VITALS)
    assert read_vitals(run).supervisor_state == "training"


@pytest.mark.parametrize("supervisor", ['"dreaming"', "[1]", '{"name": "checking_nodes"}'])
def test_a_damaged_supervisor_is_an_error(run, supervisor):
    run.vitals.write_text(f'{{"time": 1.0, "supervisor": {supervisor}}}')
    with pytest.raises(ValueError, match="supervisor"):
        read_vitals(run)


def test_nothing_depends_on_writing_it(tmp_path):
    write_vitals(RunFolder(tmp_path / "is not there"), VITALS)
    run = RunFolder(tmp_path)
    run.vitals.mkdir()  # nothing can be put in its place
    write_vitals(run, VITALS)


@pytest.mark.parametrize(
    "data",
    [
        b'{"time": 1',
        b'{"time": NaN}',
        b'{"time": 1.0, "format_version": 2}',
        b'{"time": 1.0, "more": 1}',
        b'{"time": 1.0, "restarts": [' + b",".join([b'{"time":1,"cause":""}'] * 21) + b"]}",
        b"[" * 9_000_000,
    ],
    ids=["torn", "no number", "of another version", "unknown key", "too many", "too long"],
)
def test_a_damaged_one_is_an_error(run, data):
    run.vitals.write_bytes(data)
    with pytest.raises((ValueError, OSError)):
        read_vitals(run)


def test_one_that_a_loss_of_power_has_emptied_is_none(run):
    run.vitals.touch()
    assert read_vitals(run) is None


@pytest.mark.parametrize(
    ("vitals", "since", "current"),
    [
        (VITALS, "1970-01-12T13:46:40+00:00", True),  # 1,000,000 s after the epoch
        (VITALS, "1970-01-12T13:46:41+00:00", False),  # of the owner before
        (VITALS.model_copy(update={"over": True}), "1970-01-12T13:46:40+00:00", False),
        (VITALS, "yesterday", False),
    ],
)
def test_those_of_a_former_owner_are_not_current(vitals, since, current):
    assert are_current(vitals, since) is current
