"""A driver's mirror loses no checkpoint and leaves no orphans, whichever requests fail."""

import hashlib
import os
import shutil
from contextlib import ExitStack
from itertools import count

import pytest
from support.files.disk_calls import by_name, record_disk_calls
from support.ranks.rank_pool import preloaded_context
from support.records.checkpoints import make_header
from support.storage.commits import (
    check_no_orphans,
    check_run,
    driving,
    new_process,
    save_in_process,
)
from support.storage.fault_proxy import (
    Answer,
    AppliedThen,
    CutAnswer,
    CutRequest,
    Delay,
    FaultProxy,
    Hold,
    LostAnswer,
)

from data_pipeline.storage.object_store import ObjectStore
from run_store import lease as folder_lease
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.state_objects import PARTS, PartList
from run_store.errors import LeaseLostError, RunError, RunInUseError
from run_store.remote import files, mirror, validation_archive
from run_store.remote import head as head_module
from run_store.remote.changes import add_files
from run_store.remote.files import FileObjects, KnownFiles, objects_of
from run_store.remote.head import (
    HEAD,
    HEAD_LIMITS,
    HeadObject,
    RunHead,
    request_data_workers,
    request_stop,
)
from run_store.remote.pull import RunPuller
from run_store.remote.store_check import PROBES

SECONDS = 60.0
MANY = 50
SHORT = (9, 14, 19, 24, 29)  # the requests that short tests disturb, by number


@pytest.fixture
def url(s3_server, s3_environment):
    return f"{s3_server.bucket('mirror')}/runs/one"


@pytest.fixture
def proxy(s3_server):
    with FaultProxy(s3_server.url) as proxy:
        yield proxy


def begin(url, tmp_path):
    """Save a checkpoint of step 10 with a driver that then exits."""
    with driving(url, tmp_path / "first") as driver:
        driver.save(10)


def go_on(url, tmp_path, when):
    """Continue the run with a driver on another machine, and check that no orphans remain."""
    folder = tmp_path / "other"
    shutil.rmtree(folder, ignore_errors=True)
    with driving(url, folder) as driver:
        driver.save(40)
    assert check_run(url, tmp_path / "view", when) == 40
    head = HeadObject(ObjectStore(url)).read()
    assert list(head.checkpoints) == ["step-00000040"], when
    check_no_orphans(url, when)


@pytest.mark.long
def test_a_driver_leaves_complete_files_and_no_orphans(url, tmp_path):
    with driving(url, tmp_path / "first") as driver:
        for step in (10, 20, 30):
            driver.save(step)
        (driver.run.path / "translations").mkdir()
        for number in range(2 * MANY):
            (driver.run.path / "translations" / f"{number}.txt").write_text(str(number))
        assert driver.mirror.flush(60)
        (driver.run.path / "translations" / "0.txt").unlink()
        (driver.run.path / "translations" / "1.txt").write_text("changed")
    assert check_run(url, tmp_path / "view", "after three checkpoints") == 30
    texts = {path.name: path.read_text() for path in (tmp_path / "view" / "translations").iterdir()}
    expected = {f"{n}.txt": str(n) for n in range(1, 2 * MANY)}
    assert texts == expected | {"1.txt": "changed"}
    check_no_orphans(url, "after three checkpoints")
    go_on(url, tmp_path, "afterwards")


def killed_at(url, tmp_path, proxy, request, applied):
    """Kill a driver at its n-th request; return whether it made that many requests."""
    hold = Hold(after=applied)
    proxy.heal()
    proxy.fail(hold, on={request})
    folder = tmp_path / f"killed-{request}-{applied}"
    arguments = (url, folder, proxy.environment, (20,))
    process = new_process(preloaded_context(), save_in_process, *arguments)
    while not hold.arrived.wait(0.02) and process.is_alive():
        pass
    struck = hold.arrived.is_set()
    process.kill()
    process.join()
    hold.release.set()
    assert struck or process.exitcode == 0
    return struck


@pytest.fixture(autouse=True)
def old_probes(monkeypatch):
    """Treat probes of killed drivers as old immediately."""
    monkeypatch.setattr(head_module, "PROBE_SECONDS", -1.0)


def check_kills(url, tmp_path, proxy, requests, applied):
    newest = set()
    for request in requests:
        begin(f"{url}-{request}", tmp_path / str(request))
        if not killed_at(f"{url}-{request}", tmp_path, proxy, request, applied):
            return newest
        when = f"killed at request {request}, {'after' if applied else 'before'} it was applied"
        newest.add(check_run(f"{url}-{request}", tmp_path / "view", when))
        go_on(f"{url}-{request}", tmp_path, when)
    return newest


@pytest.mark.long
@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_a_driver_killed_at_some_requests_loses_no_checkpoint(url, tmp_path, proxy, applied):
    check_kills(url, tmp_path, proxy, SHORT[applied::2], applied)


@pytest.mark.chaos
@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_a_driver_killed_at_every_request_loses_no_checkpoint(url, tmp_path, proxy, applied):
    assert check_kills(url, tmp_path, proxy, count(1), applied) == {10, 20}


def seen_at(url, folder):
    """Return the files that a reader finds at a URL."""
    shutil.rmtree(folder, ignore_errors=True)
    RunPuller(ObjectStore(url), KnownFiles(folder)).pull()
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.long
@pytest.mark.parametrize("request_number", SHORT)
def test_a_driver_resumed_after_a_takeover_changes_nothing_that_readers_see(
    url, tmp_path, proxy, monkeypatch, request_number
):
    """The former driver is held at a request until the new driver has sent its requests."""
    monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(head_module, "is_dead", lambda known: False)
    begin(url, tmp_path)
    hold = Hold()
    proxy.fail(hold, on={request_number})
    arguments = (url, tmp_path / "former", proxy.environment, (20, 30))
    former = new_process(preloaded_context(), save_in_process, *arguments)
    assert hold.arrived.wait(SECONDS)
    with driving(url, tmp_path / "new") as driver:
        driver.save(40)
        assert driver.mirror.flush(SECONDS)
        before = seen_at(url, tmp_path / "before")
        hold.release.set()
        former.join(SECONDS)
        assert former.exitcode not in (0, None)
        assert seen_at(url, tmp_path / "after") == before
        driver.save(50)
    when = f"stopped at request {request_number}"
    assert check_run(url, tmp_path / "view", when) == 50
    with driving(url, tmp_path / "last"):
        pass
    check_no_orphans(url, when)


FAULTS = [
    Answer(500),
    Answer(503),
    Answer(409),
    AppliedThen(500),
    CutAnswer(),
    CutRequest(),
    Delay(0.05),
    LostAnswer(),
]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.chaos)])
def test_a_driver_saves_checkpoints_if_requests_often_fail(url, tmp_path, proxy, monkeypatch, seed):
    """About one in seven requests fails, with any of the faults."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    for number, fault in enumerate(FAULTS):
        proxy.fail(fault, probability=0.02, seed=f"{seed} {number}")
    with ExitStack() as stack:
        for _ in range(20):  # as a job does, repeat a start that fails
            try:
                driver = stack.enter_context(driving(url, tmp_path / "driver"))
                break
            except OSError:
                continue
        for step in (10, 20):
            driver.save(step)
    proxy.heal()
    assert check_run(url, tmp_path / "view", f"seed {seed}") == 20
    assert {request.fault for request in proxy.log} - {None}
    go_on(url, tmp_path, f"seed {seed}")


def test_an_outage_delays_a_checkpoint_and_is_announced_once(
    url, tmp_path, proxy, monkeypatch, capsys
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    with driving(url, tmp_path / "driver") as driver:
        driver.save(10)
        proxy.fail(Answer(403), "PUT", "/HEAD.json")
        (driver.run.path / "log.txt").write_text("during the outage")
        assert not driver.mirror.flush(1.0)
        assert not driver.mirror.flush(1.0)
        assert not driver.mirror.flush(600.0, lambda: True)
        proxy.heal()
        driver.save(20)
    said = capsys.readouterr().out
    assert said.count("Training goes on; checkpoints and the record are uploaded when") == 1
    assert said.count(f"{url} answers again") == 1
    assert check_run(url, tmp_path / "view", "after an outage") == 20
    assert (tmp_path / "view" / "log.txt").read_text() == "during the outage"


def test_a_driver_whose_run_was_taken_over_changes_nothing(url, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(head_module, "is_dead", lambda known: False)
    with driving(url, tmp_path / "former") as former:
        former.save(10)
        former.mirror._thread.stop()  # as if the process were paused
        with driving(url, tmp_path / "new") as new:
            former.mirror._round()  # and now continued
            with pytest.raises(LeaseLostError):
                former.mirror.check()
            new.mirror.check()
    assert check_run(url, tmp_path / "view", "after a takeover") == 10


def test_a_second_driver_of_a_run_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(
        head_module, "PROBE_SECONDS", 600.0
    )  # keeps the first driver from deleting the second driver's probe
    with (
        driving(url, tmp_path / "first"),
        pytest.raises(RunInUseError),
        driving(url, tmp_path / "second"),
    ):
        pass


def test_requests_stored_in_the_head_reach_the_control_files(url, tmp_path):
    with driving(url, tmp_path / "first") as driver:
        request_stop(url, by="ada")
        request_data_workers(url, 3)
        assert driver.mirror.flush(60)
        assert driver.run.stop_order().by == "ada"
        assert driver.run.take_data_workers_request() == 3
        head = HeadObject(ObjectStore(url)).read()
        assert (head.stop_request, head.data_workers_request) == (None, None)
    with driving(url, tmp_path / "second") as driver:
        assert driver.run.stop_requested_at() is None


def write(driver, text, name="log.txt"):
    """Replace a file of the run, and wait until it is stored."""
    (driver.run.path / name).write_text(text)
    assert driver.mirror.flush(60)


def test_a_file_that_changes_constantly_has_at_most_two_objects_while_the_run_lives(url, tmp_path):
    """The objects belong to the current head and to the head before it."""
    store = ObjectStore(url)
    with driving(url, tmp_path / "first") as driver:
        write(driver, "0")
        before = len(list(store.list()))
        for number in range(1, 6):
            write(driver, f"{number}" * number)
            assert len(list(store.list())) <= before + 1


def test_objects_of_the_last_two_heads_exist_and_are_not_deleted(url, tmp_path, monkeypatch):
    """Records all writes and deletions, also those of the ranks."""
    there, heads = set(), [set(), set()]
    put, delete = ObjectStore._put, ObjectStore.delete

    def recorded(self, name, data, mode):
        path = f"{self.url}/{name}".removeprefix(f"{url}/")
        if name == HEAD:
            head = RunHead.from_json(bytes(data), HEAD_LIMITS)
            named = objects_of(head.files)
            for prefix in head.checkpoints.values():
                named |= {f"{prefix}/{PARTS}", f"{prefix}/{HEADER}"}
                states = {at for at in there if at.startswith(f"{prefix}/state-")}
                assert {at.split("/")[-2] for at in states} == {
                    f"state-{rank:05d}-of-00002.safetensors" for rank in range(2)
                }
                named |= states
            assert named <= there
            heads.append(named)
        else:
            assert path not in there or path.startswith(PROBES)  # no object is overwritten
            there.add(path)
        return put(self, name, data, mode)

    def deleted(self, names):
        names = list(names)
        gone = {f"{self.url}/{name}".removeprefix(f"{url}/") for name in names}
        assert not gone & heads[-1]
        if not leaves:
            assert not gone & {at for at in heads[-2] if not at.startswith("owners/")}
        there.difference_update(gone)
        delete(self, names)

    leaves: list[bool] = []
    monkeypatch.setattr(ObjectStore, "_put", recorded)
    monkeypatch.setattr(ObjectStore, "delete", deleted)
    with driving(url, tmp_path / "first") as driver:
        for step in (10, 20, 30):
            driver.save(step)
            write(driver, f"after step {step}\n" * step)
        leaves.append(True)
    assert len(heads) > 6
    assert check_run(url, tmp_path / "view", "after three checkpoints") == 30


def test_a_reader_that_has_the_previous_head_can_still_pull(url, tmp_path, monkeypatch):
    heads, errors, pulls = [], [], []
    change, delete = HeadObject.change, ObjectStore.delete

    def recorded(self, function):
        heads.append(self.read())
        return change(self, function)

    def delete_and_pull(self, names):
        delete(self, names)
        if heads and heads[-1]:
            try:
                RunPuller(ObjectStore(url), KnownFiles(tmp_path / "view")).pull(heads[-1])
                pulls.append((tmp_path / "view" / "log.txt").read_text())
            except OSError as error:
                errors.append(error)

    with driving(url, tmp_path / "first") as driver:
        write(driver, "0")
        with monkeypatch.context() as patch:
            patch.setattr(HeadObject, "change", recorded)
            patch.setattr(ObjectStore, "delete", delete_and_pull)
            for number in range(1, 4):
                write(driver, str(number))
    assert errors == []
    assert {"0", "1", "2"} <= set(pulls)


def test_a_file_added_again_between_read_and_swap_replaces_the_first(url, tmp_path, monkeypatch):
    texts = ["the second, which is longer", "the first"]

    def add():
        (tmp_path / "added").mkdir(exist_ok=True)
        (tmp_path / "added" / "score.json").write_text(texts.pop())
        add_files(url, tmp_path / "added")

    with driving(url, tmp_path / "first") as driver:
        change = HeadObject.change
        add()

        def overtaken(self, function):
            if texts and "score.json" in driver.mirror.current.files:  # the first version was read
                monkeypatch.setattr(HeadObject, "change", change)
                add()
            return change(self, function)

        monkeypatch.setattr(HeadObject, "change", overtaken)
        assert driver.mirror.flush(60)
        assert driver.mirror.flush(60)
        assert (driver.run.path / "score.json").read_text() == "the second, which is longer"
    assert texts == []
    RunPuller(ObjectStore(url), KnownFiles(tmp_path / "view")).pull()
    assert (tmp_path / "view" / "score.json").read_text() == "the second, which is longer"
    check_no_orphans(url, "after an addition that was replaced")


def test_requests_during_a_round_are_handled_in_the_next_one(url, tmp_path, monkeypatch):
    put = ObjectStore.put
    empty = PartList(files=[])

    def put_and_request(self, name, data):
        put(self, name, data)
        if name.endswith(f"first/{PARTS}"):
            driver.mirror.publish("second", make_header(50), empty)
            driver.mirror.remove(["step-00000040"])
            driver.mirror.retract(40)  # no effect, because step 40 is no longer queued

    monkeypatch.setattr(ObjectStore, "put", put_and_request)
    with driving(url, tmp_path / "first") as driver:
        driver.mirror.publish("never", make_header(30), empty)
        driver.mirror.retract(30)
        driver.mirror.publish("first", make_header(40), empty)
        assert driver.mirror.flush(SECONDS)
        assert driver.mirror.flush(SECONDS)
        assert driver.mirror.take_published() == ["step-00000040", "step-00000050"]
        assert driver.mirror.take_published() == []
        assert list(HeadObject(ObjectStore(url)).read().checkpoints) == ["step-00000050"]


def test_the_local_folder_of_a_published_checkpoint_is_synced(url, tmp_path, monkeypatch):
    calls = record_disk_calls(monkeypatch)
    with driving(url, tmp_path / "first") as driver:
        driver.save(10)
        partial = f"step-00000010-{driver.committer.attempt}"
    at = calls.index(("rename", driver.run.checkpoints / "step-00000010"))
    syncs = [PARTS, HEADER, partial]
    assert [name for call, name in by_name(calls[:at]) if name in syncs and call == "sync"] == syncs
    assert ("sync", driver.run.checkpoints) in calls[at:]


def test_state_files_of_a_checkpoint_that_stays_incomplete_are_removed(url, tmp_path):
    with driving(url, tmp_path / "first") as driver:
        driver.save(10)
        attempt = driver.committer.attempt
        driver.mirror.begin_attempt(attempt)
        part = f"step-00000020-{attempt}/state-00000-of-00002.safetensors/00000"
        ObjectStore(driver.mirror.states_url).put(part, b"of one of two ranks")
        assert driver.mirror.flush(60)
        names = [found.name for found in ObjectStore(url).list()]
        assert any(name.endswith(part) for name in names)  # another rank may still upload
    check_no_orphans(url, "after an incomplete checkpoint")


def test_an_invalid_addition_is_left_out_and_the_driver_continues(url, tmp_path):
    told = []
    begin(url, tmp_path)
    store = ObjectStore(url)
    with driving(url, tmp_path / "driver", told.append) as driver:
        (driver.run.path / "folder").mkdir()
        (driver.run.path / "folder" / "x").write_text("a directory here")
        assert driver.mirror.flush(SECONDS)
        good = FileObjects(bytes=2, chunks=["9-" + hashlib.sha256(b"xy").hexdigest()[:32]])
        for name, data in {
            "longer": b"xyz",
            "damaged": b"zz",
            "missing": None,
            "folder": b"xy",
        }.items():
            if data:
                store.put(good.objects(name)[0], data)
            HeadObject(store).change(
                lambda now: now.model_copy(update={"files": now.files | {name: good}})  # noqa: B023
            )
            driver.save(20 + len(told))
            for _ in range(2):
                assert driver.mirror.flush(SECONDS)
            assert name not in HeadObject(store).read().files
            assert f"{name!r}, which was added, is left out" in told[-1]
    assert len(told) == 4
    go_on(url, tmp_path, "after bad additions")


def test_a_driver_starts_on_a_run_with_many_added_files(url, tmp_path):
    begin(url, tmp_path)
    added = {f"many-{n}.txt": str(n) for n in range(2 * MANY)}
    (tmp_path / "added").mkdir()
    for name, text in added.items():
        (tmp_path / "added" / name).write_text(text)
    add_files(url, tmp_path / "added")
    with driving(url, tmp_path / "driver") as driver:
        driver.save(20)
        assert {name: (driver.run.path / name).read_text() for name in added} == added
    check_no_orphans(url, "after additions")
    go_on(url, tmp_path, "after additions")


def test_files_that_cannot_be_stored_are_reported_once_and_the_driver_continues(url, tmp_path):
    told = []
    with driving(url, tmp_path / "driver", told.append) as driver:
        folder = driver.run.path
        (folder / "line\nbreak.txt").write_text("x")
        (folder / "long" / ("n" * 250)).parent.mkdir()
        (folder / "long" / ("n" * 250)).write_text("x")
        os.mkfifo(folder / "fifo")
        (folder / "good.txt").write_text("good")
        driver.save(10)
        driver.save(20)
    assert sorted(text.split(" is not in")[0] for text in told) == sorted(
        f"the file {name!r}" for name in ("fifo", "line\nbreak.txt", f"long/{'n' * 250}")
    )
    assert check_run(url, tmp_path / "view", "with odd files") == 20
    assert (tmp_path / "view" / "good.txt").read_text() == "good"


def test_a_driver_stores_no_more_files_than_readers_accept(url, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(files, "MAX_FILES", 20)
    monkeypatch.setattr(mirror, "MAX_FILES", 20)
    with driving(url, tmp_path / "driver", told.append) as driver:
        driver.save(10)
        assert driver.mirror.flush(SECONDS)
        for number in range(30):
            (driver.run.path / f"{number}.txt").write_text("x")
        assert driver.mirror.flush(SECONDS)
        assert len(driver.mirror._files.files) == 20
    assert any("80%" in text for text in told)
    assert sum("receives no further files" in text for text in told) == 1
    assert check_run(url, tmp_path / "view", "with many files") == 10


def test_a_mirror_that_fails_repeatedly_ends_the_run_and_releases_it(url, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "RENEW_SECONDS", 0.01)
    begin(url, tmp_path)
    failing = pytest.raises(RunError, match="failed 10 times in a row: ZeroDivisionError")
    with failing, driving(url, tmp_path / "driver", print) as driver:
        driver.mirror._upload_and_swap = lambda: 1 // 0
        assert not driver.mirror.flush(SECONDS)
        driver._lease.check()
    assert HeadObject(ObjectStore(url)).read().owner.released
    go_on(url, tmp_path, "after a mirror that failed")


def test_old_validation_texts_are_stored_as_an_archive(url, tmp_path, monkeypatch):
    monkeypatch.setattr(validation_archive, "TEXTS_PER_ARCHIVE", 3)
    with driving(url, tmp_path / "driver") as driver:
        driver.run.translations.mkdir()
        for step in range(7):
            (driver.run.translations / f"validation-{step:08d}.txt").write_text(f"{step}\n")
            assert driver.mirror.flush(SECONDS)
        driver.save(10)
    names = HeadObject(ObjectStore(url)).read().files
    assert [name for name in sorted(names) if name.startswith("translations")] == [
        "translations/validation-00000000-00000002.zip",
        *(f"translations/validation-{step:08d}.txt" for step in range(3, 7)),
    ]
