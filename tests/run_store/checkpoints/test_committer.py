"""The supervisor's committer completes or gives up checkpoints as ranks report their files."""

import shutil
import threading

import pytest
from support.records.checkpoints import make_header

from run_store.checkpoints import final_save
from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import read_header
from run_store.checkpoints.state_file import FileRecord, state_file_name, write_state_file
from run_store.config import CheckpointsConfig
from run_store.errors import CheckpointError, LeaseLostError
from run_store.lease import Lease


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def lease(run):
    with Lease(run) as lease:
        yield lease


@pytest.fixture
def said():
    return []


@pytest.fixture
def committer(run, lease, said):
    """Return a committer for two ranks that keeps only the newest checkpoint."""
    config = CheckpointsConfig(keep_last=1, keep_best=0)
    return CheckpointCommitter(lease, run / "checkpoints", config, 2, said.append)


def write(committer: CheckpointCommitter, step: int, rank: int) -> FileRecord:
    partial = partial_folder(committer.work, step, committer.attempt)
    partial.mkdir(exist_ok=True)
    return write_state_file(partial / state_file_name(rank, 2), {}, [])


def steps(run):
    return [int(path.name[-8:]) for path in list_checkpoints(run / "checkpoints")]


def save(committer, step):
    """Add the files of both ranks, and return whether the last one completed the checkpoint."""
    for rank in range(2):
        completed = committer.add(write(committer, step, rank), make_header(step))
    return completed


def test_a_checkpoint_is_complete_when_all_ranks_have_written_it(run, committer):
    assert not committer.add(write(committer, 10, 1), make_header(10))
    assert steps(run) == []
    assert committer.add(write(committer, 10, 0), make_header(10))
    assert steps(run) == [10]
    assert committer.newest_step == 10
    assert save(committer, 20)
    assert steps(run) == [20]
    assert list(committer.work.iterdir()) == []
    committer.finish()


def test_a_checkpoint_is_given_up_if_one_rank_fails_to_write_it(run, committer):
    """This holds even if a slower rank creates the folder again."""
    committer.add(write(committer, 10, 0), make_header(10))
    assert committer.give_up(10)
    assert not committer.give_up(10)  # already given up
    assert not committer.add(write(committer, 10, 1), make_header(10))
    assert list(committer.work.iterdir()) == []
    with pytest.raises(CheckpointError, match=r"checkpoint, of step 10, .*same command again"):
        committer.finish()
    assert save(committer, 20)
    committer.finish()
    assert steps(run) == [20]


def test_a_failed_commit_is_reported_and_training_continues(run, committer, said):
    (run / "checkpoints" / "step-00000010" / "in the way").mkdir(parents=True)
    assert not save(committer, 10)
    (text,) = said
    assert "step 10 cannot be committed" in text
    assert "Directory not empty" in text
    assert "Training goes on" in text
    assert save(committer, 20)
    committer.finish()
    assert steps(run) == [20]
    assert list(committer.work.iterdir()) == []


def test_a_failed_commit_of_the_last_checkpoint_is_retried(run, committer, said, monkeypatch):
    monkeypatch.setattr(final_save, "FIRST_PAUSE_SECONDS", 0.05)
    (run / "checkpoints" / "step-00000010" / "in the way").mkdir(parents=True)
    assert not save(committer, 10)
    out_of_the_way = threading.Timer(0.3, shutil.rmtree, [run / "checkpoints" / "step-00000010"])
    out_of_the_way.start()
    committer.finish()
    assert "It is the run's last checkpoint, so retries continue for 60 s" in said[1]
    assert steps(run) == [10]
    assert committer.newest_step == 10


def test_the_last_checkpoint_is_given_up_after_its_retry_time(run, committer, monkeypatch):
    monkeypatch.setattr(final_save, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(final_save, "FINAL_RETRY_SECONDS", 0.2)
    (run / "checkpoints" / "step-00000010" / "in the way").mkdir(parents=True)
    assert not save(committer, 10)
    with pytest.raises(CheckpointError, match="last checkpoint, of step 10, could"):
        committer.finish()
    assert list(committer.work.iterdir()) == []


def test_a_failed_removal_is_reported_and_training_continues(run, committer, said):
    assert save(committer, 10)
    (committer.work / "condemned-step-00000010" / "in the way").mkdir(parents=True)
    assert save(committer, 20)
    (text,) = said
    assert "no longer needed cannot be removed" in text
    assert steps(run) == [10, 20]


def test_files_of_an_earlier_attempt_are_removed(run, lease, said):
    config = CheckpointsConfig()
    first = CheckpointCommitter(lease, run / "checkpoints", config, 2, said.append)
    write(first, 10, 0)
    second = CheckpointCommitter(lease, run / "checkpoints", config, 2, said.append)
    assert list(lease.work.iterdir()) == []
    assert first.attempt != second.attempt


@pytest.mark.parametrize("what", ["add", "give_up"])
def test_a_committer_whose_run_was_taken_over_reports_the_lost_lease(run, committer, what):
    """A former owner's ranks fail because their folder was removed; the lost lease is reported."""
    file = write(committer, 10, 0)
    committer.add(file, make_header(10))
    (run / "owners" / "00000099.json").write_text("{}")
    with pytest.raises(LeaseLostError):
        committer.add(file, make_header(10)) if what == "add" else committer.give_up(10)
    assert steps(run) == []
    (run / "owners" / "00000099.json").unlink()


def test_giving_up_step_1_counts_as_a_missing_last_checkpoint(committer):
    committer.give_up(1)
    with pytest.raises(CheckpointError, match="last checkpoint, of step 1, could"):
        committer.finish()


def test_a_run_may_finish_if_a_newer_checkpoint_follows_the_failed_one(run, committer):
    committer.give_up(10)
    assert save(committer, 20)
    committer.finish()
    committer.give_up(30)
    with pytest.raises(CheckpointError, match="last checkpoint, of step 30, could"):
        committer.finish()
    assert steps(run) == [20]


def test_the_file_of_a_single_rank_completes_a_checkpoint(run, lease, said):
    alone = CheckpointCommitter(lease, run / "checkpoints", CheckpointsConfig(), 1, said.append)
    partial = partial_folder(alone.work, 10, alone.attempt)
    partial.mkdir()
    file = write_state_file(partial / state_file_name(0, 1), {}, [])
    assert alone.add(file, make_header(10))
    assert steps(run) == [10]


def test_files_of_two_unfinished_checkpoints_are_kept_apart(run, committer):
    """One rank may be a checkpoint ahead of another."""
    assert not committer.add(write(committer, 10, 0), make_header(10))
    assert not committer.add(write(committer, 20, 0), make_header(20))
    assert committer.add(write(committer, 10, 1), make_header(10))
    assert steps(run) == [10]
    assert committer.add(write(committer, 20, 1), make_header(20))
    assert steps(run) == [20]


def test_a_header_lists_the_files_in_the_order_of_ranks(run, committer):
    files = {rank: write(committer, 10, rank) for rank in (1, 0)}
    for rank in (1, 0):
        committer.add(files[rank], make_header(10))
    (path,) = list_checkpoints(run / "checkpoints")
    assert [file.name for file in read_header(path).files] == [files[0].name, files[1].name]


def test_a_checkpoint_is_given_up_even_if_the_lease_cannot_be_checked(committer, monkeypatch):
    def away():
        raise OSError("the file system is away")

    monkeypatch.setattr(committer._lease, "check", away)
    assert committer.give_up(10)
