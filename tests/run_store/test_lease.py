"""A run has one owner; a former owner can no longer change its checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from support.cluster.contender import Contender
from support.files.disk_calls import by_name, record_disk_calls
from support.files.small_disk import run_on_small_disk
from support.records.checkpoints import make_header, save_checkpoint
from support.records.run_folders import dead_process

from run_store import lease as lease_module
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.errors import LeaseLostError, RunInUseError
from run_store.lease import Lease, ownership, was_owned_by


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.01)


@pytest.fixture
def contenders():
    """Return a function that starts contender processes whose leases last a second."""
    started = []

    def start(count, lease_seconds=1.0):
        started.extend(Contender(lease_seconds) for _ in range(count))
        return started[-count:]

    yield start
    for contender in started:
        contender.kill()


def owner_file(run, number, **changes):
    """Write the owner file of a number, as if another process took the run; return its path."""
    owners = run / "owners"
    owners.mkdir(parents=True, exist_ok=True)
    file = owners / f"{number:08d}.json"
    file.write_text(json.dumps(lease_module.this_process() | changes))
    return file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_owner_file_is_synced_to_the_disk_before_the_run_is_owned(tmp_path, monkeypatch):
    calls = record_disk_calls(monkeypatch)
    with Lease(tmp_path):
        assert by_name(calls) == [("sync", "00000001.json"), ("sync", "owners")]


def test_an_owner_leaves_only_a_released_file_with_its_number(tmp_path):
    for number in ("00000001", "00000002"):
        with Lease(tmp_path) as lease:
            lease.check()
            assert names(tmp_path / "owners") == [f"{number}.json"]
            assert names(tmp_path / "checkpoints") == [lease.work.name]
        assert names(tmp_path / "owners") == [f"{number}.released"]
        assert names(tmp_path / "checkpoints") == []


def test_a_second_process_is_refused_and_the_owner_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 20.0)  # allows an owner that renews slowly
    with (
        Lease(tmp_path) as lease,
        pytest.raises(RunInUseError, match=rf"in use by process {os.getpid()} on .*--run PATH"),
        Lease(tmp_path),
    ):
        pass
    with Lease(tmp_path), pytest.raises(LeaseLostError):
        lease.check()


@pytest.mark.long
def test_exactly_one_of_concurrent_processes_becomes_the_owner(tmp_path, contenders):
    """Repeated for a new run, a released run, and a run whose owner has died."""
    crowd = contenders(4, lease_seconds=10.0)
    dead = dead_process()
    winners = set()
    for number in range(30):
        if number % 3 == 2:
            newest = max(int(path.stem) for path in (tmp_path / "owners").iterdir())
            owner_file(tmp_path, newest + 1, process=dead)
        for contender in crowd:
            contender.ask("take", tmp_path)
        answers = [contender.answer() for contender in crowd]
        (winner,) = [c for c, answer in zip(crowd, answers, strict=True) if answer is None]
        for kind, message in filter(None, answers):
            assert kind == "RunInUseError"
            assert f"process {winner.pid} " in message
        assert winner.told("check") is None
        assert winner.told("leave") is None
        winners.add(winner.pid)
    assert len(winners) > 1  # different processes win, so they do race


@pytest.mark.parametrize(
    "changes",
    [{}, {"started": 1}],
    ids=["it has ended", "another one has its number"],
)
def test_the_run_of_a_dead_process_on_this_machine_is_taken_at_once(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 20.0)
    owner_file(tmp_path, 7, **(changes or {"process": dead_process()}))
    said = []
    with Lease(tmp_path, said.append) as lease:
        assert said == []  # nothing was announced, so it did not wait
        lease.check()
        assert names(tmp_path / "owners") == ["00000008.json"]


@pytest.mark.parametrize("torn", [False, True])
def test_the_run_of_a_silent_owner_elsewhere_is_taken_when_its_lease_expires(
    tmp_path, monkeypatch, torn
):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.2)
    file = owner_file(tmp_path, 7, place="another host", host="far")
    if torn:
        file.write_text("{")
    said = []
    with Lease(tmp_path, said.append):
        (text,) = said
    assert ("an unknown process" if torn else " on far ") in text


def test_the_run_of_a_killed_process_is_taken_at_once(tmp_path, monkeypatch, contenders):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 20.0)
    (contender,) = contenders(1)
    assert contender.told("take", tmp_path) is None
    assert contender.told("write", 5) is None
    contender.kill()
    said = []
    with Lease(tmp_path, said.append) as lease:
        assert said == []
        assert names(tmp_path / "checkpoints") == [lease.work.name]


def test_a_paused_owner_whose_lease_expired_can_neither_commit_nor_prune(tmp_path, contenders):
    checkpoints = tmp_path / "checkpoints"
    (former,) = contenders(1)
    assert former.told("take", tmp_path) is None
    for step in (10, 20):
        assert former.told("write", step) is None
        assert former.told("commit", step) is None
    assert former.told("write", 30) is None
    os.kill(former.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, former.pid, os.WSTOPPED)  # until it has stopped, it may renew once more
    try:
        with Lease(tmp_path) as lease:
            os.kill(former.pid, signal.SIGCONT)
            before = names(checkpoints)
            kind, message = former.told("check")
            assert kind == "LeaseLostError"
            assert f"is now owned by process {os.getpid()} on" in message
            for question in (("commit", 30), ("prune",), ("write", 40)):
                kind, _ = former.told(*question)
                assert kind == "FileNotFoundError", question
            assert former.told("leave") is None
            assert names(checkpoints) == before
            lease.check()
    finally:
        os.kill(former.pid, signal.SIGCONT)
    assert [path.name[-2:] for path in list_checkpoints(checkpoints)] == ["10", "20"]


def test_a_contender_withdraws_if_others_owned_the_run_since_its_check(tmp_path):
    """After the contender's check, one process takes and releases the run, and another takes it."""
    meanwhile = []

    class Slow(Lease):
        def _wait_until_abandoned(self, newest):
            super()._wait_until_abandoned(newest)
            if not meanwhile:
                with Lease(tmp_path):
                    pass
                meanwhile.append(Lease(tmp_path))
                meanwhile[0].__enter__()

    with Lease(tmp_path):
        pass
    with pytest.raises(RunInUseError), Slow(tmp_path):
        pass
    (owner,) = meanwhile
    owner.check()
    assert names(tmp_path / "owners") == ["00000003.json"]
    owner.__exit__(None, None, None)


def test_an_owner_that_was_paused_while_entering_does_not_harm_its_successor(tmp_path):
    """The process was paused for longer than a lease right after it had taken the run."""
    meanwhile = []

    class Slow(Lease):
        def _take(self):
            taken = super()._take()
            meanwhile.append(Lease(tmp_path))
            meanwhile[0].__enter__()
            return taken

    with pytest.raises(LeaseLostError), Slow(tmp_path):
        pass
    (owner,) = meanwhile
    assert names(tmp_path / "checkpoints") == [owner.work.name]
    owner.check()
    owner.__exit__(None, None, None)


def test_a_process_that_cannot_write_its_owner_file_does_not_own_the_run(tmp_path, monkeypatch):
    """The write fails as on a full disk."""

    def no_space(path, data):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(lease_module, "write_durably", no_space)
        with pytest.raises(OSError, match="No space"), Lease(tmp_path):
            pass
    assert names(tmp_path / "owners") == []


def test_an_owner_that_fails_while_entering_releases_the_run(tmp_path):
    class Failing(Lease):
        def _fence_former_owners(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), Failing(tmp_path):
        pass
    assert names(tmp_path / "owners") == ["00000001.released"]
    assert names(tmp_path / "checkpoints") == []


FULL_DISK = """
import json, time
from pathlib import Path
from run_store import lease as lease_module
from run_store.errors import RunInUseError
lease_module.LEASE_SECONDS, lease_module.RENEW_SECONDS, lease_module.POLL_SECONDS = 20.0, 0.05, 0.01
disk = Path({disk!r})
with lease_module.Lease(disk / "run") as lease:
    try:
        with (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError as error:
        full = error.strerror
    (file,) = (disk / "run" / "owners").iterdir()
    renewed = file.stat().st_mtime_ns
    while file.stat().st_mtime_ns == renewed:
        time.sleep(0.01)
    lease.check()
    try:
        with lease_module.Lease(disk / "run"):
            refused = ""
    except RunInUseError as error:
        refused = str(error)
left = sorted(path.name for path in (disk / "run" / "owners").iterdir())
print(json.dumps([full, refused, left]))
"""


@pytest.mark.needs("small disks")
def test_an_owner_renews_its_lease_on_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    full, refused, left = run_on_small_disk(disk, 64, FULL_DISK.format(disk=str(disk)))
    assert full == "No space left on device"
    assert "is in use by process" in refused
    assert left == ["00000001.released"]


def test_an_owner_whose_work_folder_was_removed_loses_the_run(tmp_path):
    with Lease(tmp_path) as lease:
        lease.work.rmdir()
        with pytest.raises(LeaseLostError, match=r"was removed.*same command again"):
            lease.check()


def test_an_owner_whose_owners_folder_was_removed_loses_the_run(tmp_path):
    with Lease(tmp_path) as former:
        shutil.rmtree(tmp_path / "owners")
        with pytest.raises(LeaseLostError, match=r"was removed.*same command again"):
            former.check()
        with Lease(tmp_path) as owner:
            assert names(tmp_path / "owners") == ["00000002.json"]
            assert names(tmp_path / "checkpoints") == [owner.work.name]
            with pytest.raises(LeaseLostError):
                former.check()


def test_a_new_owner_removes_unfinished_files_of_former_ones(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    left = checkpoints / ".work-00000003-abcd" / "step-00000010-a"
    left.mkdir(parents=True)
    (left / "state-00000-of-00001.safetensors").write_bytes(bytes(100))
    owner_file(tmp_path, 3, process=dead_process())
    save_checkpoint(checkpoints, make_header(5), [[]])
    with Lease(tmp_path) as lease:
        assert names(checkpoints) == sorted([lease.work.name, "step-00000005"])
        assert names(lease.work) == []


def test_a_live_process_of_another_user_is_not_considered_dead(another_users_process):
    known = lease_module.this_process() | {"process": another_users_process}
    with pytest.raises(PermissionError):
        os.kill(another_users_process, 0)
    assert not lease_module.is_dead(known)


def test_a_released_run_is_taken_at_once_by_a_waiting_process(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 600.0)
    file = owner_file(tmp_path, 1, host="elsewhere", place="another")
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        file.rename(file.with_suffix(lease_module.RELEASED))

    clock = SimpleNamespace(sleep=pause, monotonic=time.monotonic)
    monkeypatch.setattr(lease_module, "time", clock)
    with Lease(tmp_path) as lease:
        lease.check()
        assert names(tmp_path / "owners") == ["00000002.json"]
    assert pauses == [lease_module.POLL_SECONDS]


def test_a_run_that_never_had_an_owner_has_no_ownership(tmp_path):
    assert ownership(tmp_path) is None
    (tmp_path / "owners").mkdir()
    assert ownership(tmp_path) is None
    assert not was_owned_by(tmp_path, os.getpid())


def test_ownership_reads_the_owner_file_and_its_renewal_time(tmp_path):
    with Lease(tmp_path):
        mine = ownership(tmp_path)
        assert (mine.card.process, mine.released, mine.is_dead) == (os.getpid(), False, False)
        assert abs(mine.renewed - time.time()) < 3600
        assert mine.card.since.endswith("+00:00")
        assert was_owned_by(tmp_path, os.getpid())
        assert not was_owned_by(tmp_path, os.getppid())
    assert ownership(tmp_path).released
    assert was_owned_by(tmp_path, os.getpid())
    owner_file(tmp_path, 7, process=dead_process())
    assert ownership(tmp_path).is_dead
    owner_file(tmp_path, 8, host="elsewhere")
    assert not was_owned_by(tmp_path, os.getpid())
    (tmp_path / "owners" / "00000009.json").write_text("")
    assert ownership(tmp_path).card is None


def test_a_process_that_ends_without_leaving_its_lease_is_not_kept_alive(tmp_path):
    """The thread that renews the lease must not keep such a process running."""
    program = (
        "import sys; from pathlib import Path; from run_store.lease import Lease; "
        "Lease(Path(sys.argv[1])).__enter__()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=True)
    assert names(tmp_path / "owners") == ["00000001.json"]


def test_a_waiting_process_names_the_owner_once_after_two_renewal_periods(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 30.0)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 5.0)
    owner_file(tmp_path, 1, host="elsewhere", place="another", process=12)
    now, said = [0.0], []

    def pause(seconds):
        now[0] += 1.0

    clock = SimpleNamespace(sleep=pause, monotonic=lambda: now[0])
    monkeypatch.setattr(lease_module, "time", clock)
    lease = Lease(tmp_path, lambda text: said.append((now[0], text)))
    with lease:
        assert now == [30.0]
    ((when, text),) = said
    assert when == 11.0
    assert "process 12 on elsewhere" in text
    assert "lease of 30 s" in text


def test_an_owner_loses_the_run_if_a_required_check_fails(tmp_path):
    def lost():
        raise LeaseLostError("the store has another owner")

    with Lease(tmp_path) as lease:
        lease.check()
        lease.require(lost)
        with pytest.raises(LeaseLostError):
            lease.check()
