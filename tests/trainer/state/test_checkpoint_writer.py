"""Saving during training: files, reports to the supervisor, and a full disk."""

import shutil
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support.files.small_disk import run_on_small_disk
from support.gate import Gate
from support.records.checkpoints import Listener, commit_state, make_header, work_folder

from run_store.checkpoints import final_save
from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.fragment import Fragment
from run_store.errors import CheckpointError, LeaseLostError
from trainer.process import host_memory
from trainer.process.placement import Placement
from trainer.state import checkpoint_writer as writer_module
from trainer.state.checkpoint_writer import CheckpointWriter, require_host_memory


@pytest.fixture
def work(tmp_path):
    return work_folder(tmp_path / "checkpoints")


@pytest.fixture
def state():
    """Return two fragments that a rank owns, and that training would change."""
    return [
        Fragment("master", "a", 0, torch.arange(5.0)),
        Fragment("exp_avg", "b", 3, torch.arange(7.0) + 10),
    ]


def make_writer(work, state, heard, placement=None):
    return CheckpointWriter(
        lambda: iter(state),
        work=work,
        attempt="a",
        placement=placement or Placement(),
        supervision=heard,
    )


def state_of(work, step):
    return load_file(partial_folder(work, step, "a") / "state-00000-of-00001.safetensors")


@pytest.fixture
def slow_disk(monkeypatch):
    """Hold the writing of files at a gate, and return the gate."""
    gate, write = Gate(), writer_module.write_state_file

    def late(*arguments):
        gate()
        return write(*arguments)

    monkeypatch.setattr(writer_module, "write_state_file", late)
    return gate


@pytest.fixture
def heard():
    return Listener()


def test_a_save_is_written_and_reported_to_the_supervisor(heard, work, state):
    with closing(make_writer(work, state, heard)) as writer:
        stall = writer.save(make_header(10), final=True)
        assert stall > 0
        ((file, header),) = heard.written
    assert header == make_header(10)
    found = state_of(work, 10)
    assert {key: tensor.tolist() for key, tensor in found.items()} == {
        "master:a:0": [0, 1, 2, 3, 4],
        "exp_avg:b:3": [10, 11, 12, 13, 14, 15, 16],
    }
    commit_state(work, header, [file]).verify()
    assert heard.notices == heard.failed == []


def test_training_continues_while_the_copy_is_written(heard, work, state, slow_disk):
    with closing(make_writer(work, state, heard)) as writer, slow_disk:
        writer.save(make_header(10), final=False)
        state[0].tensor.add_(100)
        assert heard.written == []
        slow_disk.open()
    assert len(heard.written) == 1
    assert state_of(work, 10)["master:a:0"].tolist() == [0, 1, 2, 3, 4]


def test_a_save_waits_for_the_previous_write_and_reports_it(work, state, slow_disk, monkeypatch):
    times = iter([1.0, 1.4, 1.5])

    def now():
        slow_disk.open()
        return next(times)

    heard = Listener()
    with closing(make_writer(work, state, heard)) as writer, slow_disk:
        writer.save(make_header(10), final=False)
        monkeypatch.setattr(writer_module, "time", SimpleNamespace(monotonic=now))
        assert writer.save(make_header(20), final=False) == 0.5
        (notice,) = heard.notices
    assert "waited 0.4 s" in notice
    assert "step 20" in notice
    assert "step 10 was still being written" in notice
    assert [header.step for _, header in heard.written] == [10, 20]


def test_a_rank_that_owns_nothing_writes_an_empty_file(heard, work):
    with closing(make_writer(work, [], heard, Placement(rank=2, world_size=3))) as writer:
        writer.save(make_header(10), final=True)
    ((file, _),) = heard.written
    assert file.name == "state-00002-of-00003.safetensors"
    assert load_file(partial_folder(work, 10, "a") / file.name) == {}


def test_a_failed_save_is_reported_and_the_next_one_succeeds(heard, work, state):
    obstacle = partial_folder(work, 10, "a")
    obstacle.write_text("")
    with closing(make_writer(work, state, heard)) as writer:
        writer.save(make_header(10), final=False)
        writer.save(make_header(20), final=False)
    ((step, reason),) = heard.failed
    assert step == 10
    assert str(obstacle) in reason
    assert (
        "File exists. Training goes on, and the previous checkpoint remains valid. Free disk"
        in reason
    )
    assert [header.step for _, header in heard.written] == [20]


def test_ranks_of_a_former_owner_do_not_recreate_their_work_folder(heard, work, state):
    shutil.rmtree(work)
    with closing(make_writer(work, state, heard)) as writer:
        writer.save(make_header(10), final=False)
    assert "No such file or directory" in heard.failed[0][1]
    assert not work.exists()


@pytest.fixture
def pauses(monkeypatch):
    """Return the pauses between attempts of a final save, without sleeping."""
    pauses = []
    clock = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr(final_save, "time", clock)
    return pauses


def test_a_failed_final_save_is_retried(heard, work, state, pauses, monkeypatch):
    obstacle = partial_folder(work, 10, "a")
    obstacle.write_text("")
    heard.notice = lambda text: (
        heard.notices.append(text) or (len(heard.notices) == 3 and obstacle.unlink())
    )
    with closing(make_writer(work, state, heard)) as writer:
        writer.save(make_header(10), final=True)
    assert [header.step for _, header in heard.written] == [10]
    assert pauses == [1.0, 2.0, 4.0]
    assert "File exists. It is part of the run's last checkpoint, so retries" in heard.notices[0]
    assert "retries continue for 57 s" in heard.notices[2]
    assert heard.failed == []


def test_a_final_save_that_always_fails_is_an_error(heard, work, state, pauses):
    shutil.rmtree(work)
    with (
        closing(make_writer(work, state, heard)) as writer,
        pytest.raises(CheckpointError, match=r"remains valid.*the same command again"),
    ):
        writer.save(make_header(10), final=True)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 29.0]


@pytest.mark.parametrize("then", ["save", "close"])
def test_an_exception_of_the_writer_thread_is_raised_by_the_next_call(work, state, then):
    class Fenced(Listener):
        def state_written(self, file, header):
            raise LeaseLostError("somebody else's")

    writer = make_writer(work, state, Fenced())
    writer.save(make_header(10), final=False)
    next_call = (
        writer.close if then == "close" else lambda: writer.save(make_header(20), final=False)
    )
    with pytest.raises(LeaseLostError, match="somebody else's"):
        next_call()
    writer.close()


def test_too_little_host_memory_is_reported_at_the_start(work, state):
    ranks = 10**13
    with pytest.raises(
        CheckpointError,
        match=r"needs 480000\.00 GB of host memory for all ranks on the node of rank 0.* GB are",
    ):
        require_host_memory(state, Placement(local_world_size=ranks))


def test_memory_for_the_copy_is_allocated_at_the_start(work):
    """The host allocates a page only when it is first written."""
    host_memory.release_freed_memory()  # an earlier test may have retained freed memory
    before = host_memory.resident_bytes()
    state = [Fragment("master", "w", 0, torch.zeros(1).expand(20_000_000))]
    with closing(make_writer(work, state, Listener())):
        assert host_memory.resident_bytes() - before > 75_000_000


FULL_DISK = """
import json
from pathlib import Path
import torch
from support.records.checkpoints import Listener, make_header
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.lease import Lease
from run_store.checkpoints.checkpoint import newest_intact
from trainer.state.checkpoint_writer import CheckpointWriter
from run_store.config import CheckpointsConfig
from trainer.process.placement import Placement
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.committer import CheckpointCommitter
run = Path({run!r})
with Lease(run) as lease:
    committer = CheckpointCommitter(lease, run / "checkpoints", CheckpointsConfig(), 1, print)
    heard = Listener(committer)
    writer = CheckpointWriter(
        lambda: [Fragment("master", "w", 0, torch.ones(100_000))], work=lease.work,
        attempt=committer.attempt, placement=Placement(), supervision=heard)
    for step in (10, 20, 30):
        filler = run / "filler"
        if step == 20:
            filler.write_bytes(bytes(500_000))
        else:
            filler.unlink(missing_ok=True)
        writer.save(make_header(step, parameters=dict(w=[100_000])), final=False)
        writer.close() if step == 30 else writer.finish()
        if step == 20:
            left = [path.name for path in lease.work.iterdir()]
    newest, damaged = newest_intact(run / "checkpoints")
    steps = [path.name for path in list_checkpoints(run / "checkpoints")]
print(json.dumps([heard.failed, left, steps, newest.step, bool(damaged)]))
"""


@pytest.mark.long
@pytest.mark.needs("small disks")
def test_training_survives_a_full_disk_and_the_next_save_succeeds(tmp_path):
    """The disk has 1,000 kB, of which each checkpoint takes 400."""
    run = tmp_path / "run"
    failed, left, steps, newest, damaged = run_on_small_disk(
        run, 1000, FULL_DISK.format(run=str(run))
    )
    ((step, reason),) = failed
    assert step == 20
    assert "No space left on device" in reason
    assert left == []  # unfinished files are removed to free space
    assert steps == ["step-00000010", "step-00000030"]
    assert (newest, damaged) == (30, False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_the_state_of_a_gpu_is_copied_through_pinned_memory(work):
    state = [Fragment("master", "w", 0, torch.arange(1_000_003.0, device="cuda"))]
    with closing(make_writer(work, state, Listener(), Placement(device="cuda"))) as writer:
        assert writer._buffer.is_pinned()
        writer.save(make_header(10), final=False)
        state[0].tensor.zero_()
    assert torch.equal(state_of(work, 10)["master:w:0"], torch.arange(1_000_003.0))


@pytest.mark.parametrize("final", [False, True])
def test_the_record_is_synced_before_each_state_file_is_written(work, state, final):
    events = []

    class Told(Listener):
        def state_written(self, file, header):
            events.append("told")

    writer = make_writer(work, state, Told())
    writer._sync_record = lambda: events.append(f"synced, with {list(work.iterdir())} written")
    for step in (10, 20):
        writer.save(make_header(step), final=final)
        writer.finish()
        shutil.rmtree(partial_folder(work, step, "a"))
    writer.close()
    assert events == ["synced, with [] written", "told"] * 2


def test_no_checkpoint_is_written_if_the_record_cannot_be_synced(work, state):
    def full_disk():
        raise CheckpointError("metrics.jsonl is on a full disk")

    heard = Listener()
    with closing(make_writer(work, state, heard)) as writer:
        writer._sync_record = full_disk
        writer.save(make_header(10), final=False)
    assert heard.written == []
    ((step, reason),) = heard.failed
    assert step == 10
    assert reason.startswith("metrics.jsonl is on a full disk. Training goes on")
    assert list(work.iterdir()) == []
