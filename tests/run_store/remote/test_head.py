"""The head changes only by compare-and-swap, even if several processes change it at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from data_pipeline.storage.object_errors import ObjectConflictError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from run_store import lease as folder_lease
from run_store.errors import LeaseLostError, RunInUseError, RunMismatchError
from run_store.remote import head as head_module
from run_store.remote import lease
from run_store.remote.files import MAX_FILES, FileObjects
from run_store.remote.head import (
    HEAD,
    HEAD_LIMITS,
    HeadObject,
    RunHead,
    RunOwner,
    owner_of,
    owners_change,
)

FILE = {"bytes": 1, "chunks": ["1-" + "0" * 32]}
CHANGES = 8
WRITERS = 4


@pytest.fixture
def store(s3_server, s3_environment):
    return ObjectStore(f"{s3_server.bucket('heads')}/run")


def test_concurrent_changes_of_the_head_are_all_applied(store):
    def work(writer):
        head = HeadObject(store)
        for number in range(CHANGES):
            name = f"step-{writer}-{number}"
            head.change(lambda now: with_checkpoint(now, name))  # noqa: B023 (called at once)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(work, range(WRITERS)))
    found = HeadObject(store).read()
    assert found.revision == WRITERS * CHANGES
    assert len(found.checkpoints) == WRITERS * CHANGES


def with_checkpoint(now, name):
    return now.model_copy(update={"checkpoints": {**now.checkpoints, name: f"owners/{name}"}})


@pytest.mark.parametrize("lost", ["put_new", "put_over"])
def test_a_change_whose_answer_is_lost_is_applied_once(store, lost, monkeypatch):
    """The client repeats the request, whose condition fails because the first one was applied."""
    head = HeadObject(store)
    if lost == "put_over":
        head.change(lambda now: with_checkpoint(now, "first"))
    put = getattr(store, lost)

    def put_twice(*arguments):
        put(*arguments)
        raise ObjectConflictError("412")

    with monkeypatch.context() as patch:
        patch.setattr(store, lost, put_twice)
        head.change(lambda now: with_checkpoint(now, "second"))
    found = HeadObject(store).read()
    assert found.revision == (2 if lost == "put_over" else 1)
    assert "second" in found.checkpoints


def test_the_head_can_be_changed_again_after_a_request_timed_out(store, monkeypatch):
    head = HeadObject(store)
    head.change(lambda now: with_checkpoint(now, "first"))
    put = store.put_over

    def put_and_stall(*arguments):
        put(*arguments)
        raise ObjectStoreError("timeout")

    monkeypatch.setattr(store, "put_over", put_and_stall)
    with pytest.raises(ObjectStoreError):
        head.change(lambda now: with_checkpoint(now, "second"))
    monkeypatch.setattr(store, "put_over", put)
    head.change(lambda now: with_checkpoint(now, "third"))
    assert set(HeadObject(store).read().checkpoints) == {"first", "second", "third"}


@pytest.mark.parametrize(
    "damage",
    [
        {"format": "transloom-head/9"},
        {"files": {"../../etc/passwd": FILE}},
        {"files": {"/etc/passwd": FILE}},
        {"files": {"a\\b": FILE}},
        {"files": {"a": {}}},
        {"files": {"a": FILE | {"chunks": ["../other"]}}},
        {"files": {"control/stop": FILE}},
        {"files": {"checkpoints/step-00000001/checkpoint.json": FILE}},
        {"files": {"a/../../b": FILE}},
        {"files": {"owners/00000009.json": FILE}},
        {"checkpoints": {"..": "owners/1"}},
        {"checkpoints": {"a/step-00000001": "owners/1"}},
        {"checkpoints": {"step-1": "../other"}},
        {"stop_request": 1},
        {"more": 1},
    ],
)
def test_a_hostile_head_is_refused(store, damage):
    store.put(HEAD, json.dumps(RunHead().model_dump(mode="json") | damage).encode())
    with pytest.raises(RunMismatchError, match=f"{store.url}/{HEAD} is damaged"):
        HeadObject(store).read()


def test_the_owner_number_is_parsed_from_the_name_of_an_object():
    assert owner_of("owners/00000007/step-1/parts.json") == 7
    assert owner_of("a/b.txt/00012-9-" + "0" * 32) == 9
    assert owner_of("a/b.txt/00012-9-x") is None
    assert owner_of("HEAD.json") is None
    assert owner_of("owners/00000007") is None


class TestLease:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 1.0)
        monkeypatch.setattr(lease, "WATCH_SECONDS", 0.1)
        # Both leases of a test belong to this process, so do not check whether it lives.
        monkeypatch.setattr(head_module, "is_dead", lambda known: False)

    def test_exactly_one_of_concurrent_contenders_acquires_the_lease(self, store):
        def contend(_):
            head = HeadObject(store)
            try:
                return lease.acquire(head, print).owner.number
            except RunInUseError:
                return None

        with ThreadPoolExecutor(WRITERS) as pool:
            numbers = list(pool.map(contend, range(WRITERS)))
        assert sorted(numbers, key=str) == [1, None, None, None]

    def test_a_lease_that_is_renewed_is_not_taken_over(self, store):
        owner = HeadObject(store)
        number = lease.acquire(owner, print).owner.number

        def renew(now):
            return lease.renewed(owner, now, number)

        with ThreadPoolExecutor(1) as pool:
            contender = pool.submit(lease.acquire, HeadObject(store), print)
            while not contender.done():
                owner.change(renew)
            with pytest.raises(RunInUseError):
                contender.result()

    def test_an_expired_lease_is_taken_over_and_its_former_owner_is_refused(self, store):
        former = HeadObject(store)
        number = lease.acquire(former, print).owner.number
        assert lease.acquire(HeadObject(store), print).owner.number == number + 1
        with pytest.raises(LeaseLostError, match=f"{store.url} is now owned by process"):
            former.change(lambda now: lease.renewed(former, now, number))


@pytest.mark.parametrize("renewals", [0, 1, 3])
def test_an_owner_that_renews_before_a_contender_writes_keeps_the_run(store, monkeypatch, renewals):
    """The lease seems expired to the contender, as after a pause of the owner."""
    monkeypatch.setattr(head_module, "is_dead", lambda owner: False)
    head = HeadObject(store)
    number = lease.acquire(head, print).owner.number
    monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 0.0)
    wait = lease.wait_until_abandoned

    def overtaken(*arguments):
        seen = wait(*arguments)
        for _ in range(renewals):
            head.change(lambda now: lease.renewed(head, now, number))
        return seen

    monkeypatch.setattr(lease, "wait_until_abandoned", overtaken)
    if renewals:
        with pytest.raises(RunInUseError):
            lease.acquire(HeadObject(store), print)
        assert head.read().owner.number == number
    else:
        assert lease.acquire(HeadObject(store), print).owner.number == number + 1


def test_an_owner_that_has_released_the_run_cannot_renew_its_lease(store):
    head = HeadObject(store)
    number = lease.acquire(head, print).owner.number

    def release(now):
        owner = now.owner.model_copy(update={"released": True})
        return now.model_copy(update={"owner": owner})

    head.change(lambda now: release(lease.renewed(head, now, number)))
    for _ in range(2):
        with pytest.raises(LeaseLostError):
            head.change(lambda now: lease.renewed(head, now, number))
    assert head.read().owner.released


@pytest.mark.parametrize(
    "damage",
    [
        {"owner": {"number": 1, "renewed": 1e308}},
        {"owner": {"number": 1, "renewed": -1.0}},
        {"files": {"/".join(2_000 * ["d"]): FILE}},
        {"files": {"x": FILE | {"modified": 1e308}}},
        {"files": {"x": FILE | {"bytes": 256 * 1024 + 1}}},
        {"files": {f"{number}": FILE for number in range(MAX_FILES + 1)}},
        {"format": "transloom-head/2"},
        {"checkpoints": {"step-" + 300 * "1": "owners/00000001/c"}},
        {"checkpoints": {"step-1": "owners//c"}},
        {"checkpoints": {f"step-{number}": "owners/1/c" for number in range(20_001)}},
    ],
)
def test_a_head_beyond_the_limits_is_refused(store, damage):
    files = {"metrics.jsonl": FileObjects.model_validate(FILE)}
    head = RunHead(owner=RunOwner(number=1, released=True), files=files)
    store.put(HEAD, json.dumps(head.model_dump(mode="json") | damage).encode())
    with pytest.raises(RunMismatchError, match="is damaged"):
        HeadObject(store).read()


def test_a_head_above_the_size_limit_is_refused(store):
    store.put(HEAD, b" " * (HEAD_LIMITS.bytes + 1))
    with pytest.raises(RunMismatchError, match="16,000,001 bytes, expected at most 16,000,000"):
        HeadObject(store).read()


def test_a_writer_refuses_a_head_that_readers_would_refuse(store):
    many = {f"step-{number:08d}": f"owners/00000001/{number}" for number in range(20_001)}
    with pytest.raises(RunMismatchError, match=r"20,001 checkpoints .* at most 20,000 .* Remove"):
        HeadObject(store).change(lambda now: now.model_copy(update={"checkpoints": many}))
    assert HeadObject(store).read() is None


def files(**digits):
    """Return file entries with one object each."""
    return {
        name: FileObjects(bytes=1, chunks=[f"1-{digit * 32}"]) for name, digit in digits.items()
    }


def change_of(before, **changes):
    values = {
        "before": before,
        "files": before | files(mine="1"),
        "gone": {"gone"},
        "published": {"step-00000030": "owners/00000001/step-30"},
        "removed": {"step-00000010"},
        "moved_aside": {"step-00000020": "damaged-step-00000020"},
    }
    return partial(owners_change, **values | changes)


def test_applying_a_change_again_to_its_result_changes_nothing():
    """If the answer to the first swap is lost, the change is applied to a head that contains it."""
    head = RunHead(
        files=files(kept="2", gone="3"),
        checkpoints={"step-00000010": "p/10", "step-00000020": "p/20"},
        stop_request="user",
    )
    before = head.model_copy(deep=True)
    change = change_of(head.files, files=files(kept="2", mine="1"))
    after = change(head)
    assert after.checkpoints == {
        "damaged-step-00000020": "p/20",
        "step-00000030": "owners/00000001/step-30",
    }
    assert after.files == files(kept="2", mine="1")
    assert (after.stop_request, after.data_workers_request) == (None, None)
    assert change(after) == after
    assert head == before


def test_files_added_by_another_process_before_the_swap_are_kept():
    before = files(note="2", gone="3", changed="4")
    change = change_of(before, files=files(note="2", mine="1", changed="5"))
    now = RunHead(files=files(note="6", gone="7", changed="8", new="9"))
    expected = files(note="6", gone="7", changed="5", new="9", mine="1")
    assert change(now).files == expected
