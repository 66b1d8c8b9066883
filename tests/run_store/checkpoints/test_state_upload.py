"""Background uploads: training does not wait for them, and only the newest file is queued."""

import threading
from contextlib import closing

import pytest
import torch
from support.records.checkpoints import Listener, make_header, work_folder

from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from run_store.checkpoints import final_save
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.state_objects import UploadedFile
from run_store.checkpoints.state_upload import StateUploader
from run_store.errors import CheckpointError, LeaseLostError
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter


@pytest.fixture
def work(tmp_path):
    return work_folder(tmp_path / "checkpoints")


@pytest.fixture
def url(s3_server, s3_environment):
    return f"{s3_server.bucket('uploads')}/run/owners/00000001"


@pytest.fixture
def gate(monkeypatch):
    """Return an event; uploads wait until it is set."""
    gate = threading.Event()
    put = ObjectStore.put

    def waiting(self, name, data):
        assert gate.wait(60)
        put(self, name, data)

    monkeypatch.setattr(ObjectStore, "put", waiting)
    yield gate
    gate.set()


def make_writer(work, url, listener):
    state = [Fragment("master", "w", 0, torch.arange(4.0))]
    return CheckpointWriter(
        lambda: state,
        work=work,
        attempt="a",
        placement=Placement(),
        supervision=listener,
        uploader=StateUploader(url, listener),
    )


def test_a_file_is_reported_and_deleted_locally_once_it_is_uploaded(work, url):
    heard = Listener()
    with closing(make_writer(work, url, heard)) as writer:
        writer.save(make_header(10), final=False)
        writer.finish()
    ((file, header),) = heard.written
    assert isinstance(file, UploadedFile)
    assert header.step == 10
    (stored,) = ObjectStore(url).list()
    assert stored.name == f"step-00000010-a/{file.name}/00000"
    assert stored.bytes == file.bytes
    assert [path.name for path in work.rglob("*") if path.is_file()] == []


def test_a_stalled_upload_delays_checkpoints_but_no_step(work, url, gate):
    heard = Listener()
    with closing(make_writer(work, url, heard)) as writer:
        for step in (10, 20, 30, 40):
            writer.save(make_header(step), final=False)  # returns before anything is uploaded
            writer._finish_writing()
        assert heard.written == []
        gate.set()
        writer.finish()
    steps = [header.step for _, header in heard.written]
    given_up = [step for step, _ in heard.failed]
    assert steps[-1] == 40
    assert sorted(steps + given_up) == [10, 20, 30, 40]
    assert len(given_up) >= 2
    assert f"the checkpoint of step {given_up[0]} is given up" in heard.failed[0][1]


def test_a_failed_upload_is_reported_and_the_next_one_succeeds(work, url, monkeypatch):
    heard = Listener()
    with closing(make_writer(work, url, heard)) as writer:
        with monkeypatch.context() as patched:
            patched.setattr(ObjectStore, "put", fail)
            writer.save(make_header(10), final=False)
            writer.finish()
        writer.save(make_header(20), final=False)
        writer.finish()
    ((step, reason),) = heard.failed
    assert step == 10
    assert "the store is away. Training goes on, and the previous checkpoint" in reason
    assert [header.step for _, header in heard.written] == [20]


def fail(*_):
    raise ObjectStoreError("the store is away")


@pytest.mark.parametrize("returns", [True, False])
def test_a_failed_last_upload_is_retried_for_a_limited_time(work, url, monkeypatch, returns):
    monkeypatch.setattr(final_save, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(final_save, "FINAL_RETRY_SECONDS", 0.1)
    heard, put, failures = Listener(), ObjectStore.put, []

    def sometimes(*arguments):
        if not returns or not failures:
            failures.append(1)
            fail()
        put(*arguments)

    monkeypatch.setattr(ObjectStore, "put", sometimes)
    writer = make_writer(work, url, heard)
    if returns:
        writer.save(make_header(10), final=True)
        assert [header.step for _, header in heard.written] == [10]
    else:
        with pytest.raises(CheckpointError, match=r"the store is away.*the same command again"):
            writer.save(make_header(10), final=True)
    assert "retries continue" in heard.notices[0]
    writer.close()


def test_an_unexpected_exception_of_the_upload_thread_is_raised_by_close(work, url):
    class Fenced(Listener):
        def state_written(self, file, header):
            raise LeaseLostError("somebody else's")

    writer = make_writer(work, url, Fenced())
    writer.save(make_header(10), final=False)
    with pytest.raises(LeaseLostError, match="somebody else's"):
        writer.close()


def files_in(work):
    return [path.name for path in work.rglob("*") if path.is_file()]


def test_a_file_whose_upload_fails_is_deleted_from_the_disk(work, url, monkeypatch):
    monkeypatch.setattr(ObjectStore, "put", fail)
    heard = Listener()
    with closing(make_writer(work, url, heard)) as writer:
        writer.save(make_header(10), final=False)
        writer.finish()
        assert files_in(work) == []
    assert [step for step, _ in heard.failed] == [10]


def test_files_of_checkpoints_that_are_given_up_are_deleted_from_the_disk(work, url, gate):
    heard = Listener()
    with closing(make_writer(work, url, heard)) as writer:
        for step in (10, 20, 30):
            writer.save(make_header(step), final=False)
            writer._finish_writing()
        assert len(files_in(work)) == 3 - len(heard.failed)
        gate.set()
    assert heard.failed
    assert files_in(work) == []


def test_the_last_checkpoint_waits_for_the_upload_in_flight(work, url, monkeypatch):
    """Otherwise an older checkpoint could be reported after the last one."""
    heard, put, last_began = Listener(), ObjectStore.put, threading.Event()

    def slow(self, name, data):
        if "step-00000020" in self.url:
            last_began.set()
        elif last_began.wait(0.3):
            raise AssertionError("the last checkpoint is uploaded beside an older one")
        put(self, name, data)

    monkeypatch.setattr(ObjectStore, "put", slow)
    with closing(make_writer(work, url, heard)) as writer:
        writer.save(make_header(10), final=False)
        writer.save(make_header(20), final=True)
        assert [header.step for _, header in heard.written] == [10, 20]


def test_save_and_finish_succeed_again_after_a_failed_upload(work, url, monkeypatch):
    """The upload thread continues after a failure, and `finish` waits for each new file."""
    heard = Listener()
    with closing(make_writer(work, url, heard)) as writer:
        for step in (10, 20, 30):
            with monkeypatch.context() as patched:
                if step == 20:
                    patched.setattr(ObjectStore, "put", fail)
                writer.save(make_header(step), final=False)
                writer.finish()
    assert [header.step for _, header in heard.written] == [10, 30]
    assert [step for step, _ in heard.failed] == [20]
