"""Copies of whole runs between folders and an object store."""

import hashlib
import json
import shutil
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import torch
from support.files.disk_calls import record_disk_calls
from support.records.checkpoints import make_header, rewrite_header, save_checkpoint
from support.storage.commits import check_no_orphans

from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from run_store.checkpoints import state_objects
from run_store.checkpoints.averaging import average
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_averages, list_checkpoints
from run_store.checkpoints.format import read_header
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import CheckpointError, RunInUseError, RunMismatchError
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.remote import files, push_pull
from run_store.remote import lease as remote_lease
from run_store.remote.files import objects_of
from run_store.remote.head import HEAD, HeadObject
from run_store.remote.mirror import RunMirror
from run_store.remote.push_pull import pull_run, push_run

pytestmark = pytest.mark.usefixtures("s3_environment")

SHAPES = {"a": [20, 50], "b": [70]}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Use small sizes, so that a state file has several parts and a part several chunks."""
    monkeypatch.setattr(state_objects, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(state_objects, "CHUNKS_PER_PART", 3)
    monkeypatch.setattr(state_objects, "PART_BYTES", 3000)
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def url(s3_server):
    return f"{s3_server.bucket('runs')}/some/runs/tiny"


def save(folder, step, ranks=1):
    generator = torch.Generator().manual_seed(step)
    shares = [[] for _ in range(ranks)]
    for name, shape in SHAPES.items():
        flat, start = torch.randn(shape, generator=generator).flatten(), 0
        for share, piece in zip(shares, flat.chunk(ranks), strict=True):
            share.append(Fragment("master", name, start, piece))
            start += len(piece)
    save_checkpoint(folder, make_header(step, parameters=SHAPES), shares)
    shutil.rmtree(folder / ".work-00000001-test")


def made_run(folder, number="1"):
    """Make a run folder with one checkpoint, and return its path."""
    (folder / "checkpoints").mkdir(parents=True)
    card = {"id": number, "name": "tiny", "dataset_identity": "d", "identity": {}}
    (folder / "run.json").write_text(json.dumps(card))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n' * 100)
    save(folder / "checkpoints", 10)
    return folder


@pytest.fixture
def folder(tmp_path):
    return made_run(tmp_path / "tiny")


@pytest.fixture
def large(folder):
    """Return a run with two checkpoints, their average, and files that are not pushed."""
    for name in ("owners", "control", "dataset", "engines/x", "translations"):
        (folder / name).mkdir(parents=True)
    (folder / "dataset" / "manifest.json").write_text("{}")
    (folder / "translations" / "a b ü.txt").write_text("x\n")
    (folder / "empty.txt").write_text("")
    (folder / "engines" / "x" / "model.bin").write_text("rebuilt when needed")
    (folder / "owners" / "00000003.released").write_text("{}")
    checkpoints = folder / "checkpoints"
    save(checkpoints, 20, ranks=2)
    average(checkpoints, [Checkpoint(path) for path in list_checkpoints(checkpoints)])
    return folder


def content(folder, *, without=("owners", "control", "engines")):
    """Return the bytes of all files of a run, except those that belong to a machine or an owner."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in without
    }


def objects(url):
    return {object.name: object.bytes for object in ObjectStore(url).list()}


def test_a_pulled_run_equals_the_pushed_one(large, url, tmp_path):
    before, reports = content(large), []
    pushed = push_run(large, url, lambda *counts: reports.append(counts))
    pulled = pull_run(url, tmp_path / "back" / "other", lambda *counts: reports.append(counts))
    assert content(tmp_path / "back" / "other") == before == content(large)
    assert pushed == pulled
    assert (pushed.checkpoints, pushed.files) == (3, 5)
    assert pushed.bytes == sum(map(len, before.values())) - sum(
        len(data) for name, data in before.items() if name.endswith("checkpoint.json")
    )
    done, total = reports[-1]
    assert done == total == sum(len(d) for n, d in before.items() if n.endswith(".safetensors"))
    for name in ("metrics.jsonl", "translations/a b ü.txt"):
        one, other = (path / name for path in (large, tmp_path / "back" / "other"))
        assert one.stat().st_mtime == pytest.approx(other.stat().st_mtime, abs=1e-3)
    assert not [path for path in (tmp_path / "back").iterdir() if path.name != "other"]


def test_a_pulled_run_can_be_owned_and_its_checkpoints_read(folder, url, tmp_path):
    push_run(folder, url)
    pull_run(url, tmp_path / "back")
    with Lease(tmp_path / "back"):
        newest = list_checkpoints(tmp_path / "back" / "checkpoints")[-1]
        found, expected = (
            CheckpointReader(Checkpoint(path)).weights()
            for path in (newest, list_checkpoints(folder / "checkpoints")[-1])
        )
        assert all(torch.equal(found[name], expected[name]) for name in SHAPES)


def test_the_head_names_exactly_the_stored_objects(large, url):
    push_run(large, url)
    head = HeadObject(ObjectStore(url)).read()
    assert head.owner.released
    assert head.owner.number == 1
    assert sorted(head.checkpoints) == ["average-of-10-20", "step-00000010", "step-00000020"]
    assert objects(url).keys() - objects_of(head.files) - {HEAD}
    check_no_orphans(url, "after a push")


def test_a_driver_continues_a_pushed_run(large, url, tmp_path):
    push_run(large, url)
    with RunMirror(url, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        assert mirror.number == 2
        (tmp_path / "node" / "log.txt").write_text("trained\n")
    assert content(tmp_path / "node", without=("owners", "checkpoints", "log.txt")) == content(
        large, without=("owners", "checkpoints", "engines")
    )
    pull_run(url, tmp_path / "back")
    assert content(tmp_path / "back") == content(large) | {"log.txt": b"trained\n"}


def test_pushing_again_uploads_only_new_content(folder, url, monkeypatch):
    push_run(folder, url)
    before = objects(url)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("more\n")
    save(folder / "checkpoints", 30)
    push_run(folder, url)
    head = HeadObject(ObjectStore(url)).read()
    assert head.owner.number == 2
    assert len(head.checkpoints) == 2
    new = [name for name in objects(url) if name not in before]
    assert all("metrics" in name or "step-00000030" in name for name in new)
    gone = [name for name in before if name not in objects(url)]
    assert gone
    assert all("metrics" in name for name in gone)


class BrokenError(ObjectStoreError):
    pass


@contextmanager
def failing_after(monkeypatch, method, requests):
    """Let a method of object stores fail after a number of calls."""
    call, calls = getattr(ObjectStore, method), count(1)

    def fail_later(self, *arguments):
        if next(calls) > requests:
            raise BrokenError("broken")
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, method, fail_later)
        yield


@pytest.mark.parametrize("requests", [0, 2, 5])
def test_an_interrupted_push_stores_no_head_and_is_resumed(
    folder, url, tmp_path, monkeypatch, requests
):
    put = ObjectStore.put
    with pytest.raises(BrokenError), failing_after(monkeypatch, "put", requests):
        push_run(folder, url)
    assert HeadObject(ObjectStore(url)).read() is None
    left = {name for name in objects(url) if "safetensors" in name}
    written = []

    def record(self, name, data):
        written.append(f"{self.url.removeprefix(url).strip('/')}/{name}")
        put(self, name, data)

    monkeypatch.setattr(ObjectStore, "put", record)
    push_run(folder, url)
    assert not left & set(written)
    pull_run(url, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)
    check_no_orphans(url, "after an interrupted push")


def test_an_interrupted_pull_leaves_no_folder_and_is_resumed(folder, url, tmp_path, monkeypatch):
    save(folder / "checkpoints", 20)
    push_run(folder, url)
    fetch = ObjectStore.get_range
    with pytest.raises(BrokenError), failing_after(monkeypatch, "get_range", 8):
        pull_run(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    again = []
    monkeypatch.setattr(
        ObjectStore, "get_range", lambda self, *a: again.append(a) or fetch(self, *a)
    )
    pull_run(url, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)
    whole = sum(-(-f.stat().st_size // 1000) for f in folder.rglob("*.safetensors"))
    assert len(again) < whole


def test_a_push_does_not_overwrite_another_run(folder, url, tmp_path):
    push_run(folder, url)
    before = objects(url)
    other = made_run(tmp_path / "other", number="2")
    with pytest.raises(RunMismatchError, match=r"id 1.*id 2.*Name a URL"):
        push_run(other, url)
    assert objects(url) == before


def test_a_push_does_not_overwrite_a_run_with_newer_checkpoints(large, url):
    push_run(large, url)
    shutil.rmtree(large / "checkpoints" / "step-00000020")
    with pytest.raises(RunMismatchError, match=r"step 20.*step 10.*runs pull"):
        push_run(large, url)


def test_a_push_keeps_files_that_are_only_in_the_store(large, url, tmp_path):
    push_run(large, url)
    shutil.rmtree(large / "checkpoints" / "average-of-10-20")
    (large / "translations" / "a b ü.txt").unlink()
    push_run(large, url)
    pull_run(url, tmp_path / "back")
    assert list_averages(tmp_path / "back" / "checkpoints")
    assert (tmp_path / "back" / "translations" / "a b ü.txt").exists()


def test_a_run_that_a_process_owns_is_not_pushed(folder, url, tmp_path, monkeypatch):
    from run_store import lease

    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    with Lease(folder), pytest.raises(RunInUseError):
        push_run(folder, url)
    assert objects(url) == {}


def test_a_push_does_not_overwrite_a_run_that_a_driver_owns(folder, url, tmp_path, monkeypatch):
    push_run(folder, url)
    monkeypatch.setattr(remote_lease, "WATCH_SECONDS", 0.1)
    with RunMirror(url, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        mirror._thread._interval_seconds = 0.2
        mirror._thread.wake()
        with pytest.raises(RunInUseError):
            push_run(folder, url)


def test_a_push_is_refused_if_a_driver_takes_the_run_meanwhile(folder, url, tmp_path, monkeypatch):
    """The driver takes the run between the upload and the change of the head."""
    push_run(folder, url)
    save(folder / "checkpoints", 30)
    change = HeadObject.change
    begun = []

    def late(self, made):
        if not begun:
            begun.append(1)
            remote_lease.acquire(HeadObject(ObjectStore(url)), lambda text: None)
        return change(self, made)

    monkeypatch.setattr(HeadObject, "change", late)
    with pytest.raises(RunMismatchError, match="changed meanwhile by process"):
        push_run(folder, url)
    head = HeadObject(ObjectStore(url)).read()
    assert "step-00000030" not in head.checkpoints
    assert head.owner.number == 2


def test_a_damaged_checkpoint_is_not_pushed(folder, url):
    state = next((folder / "checkpoints" / "step-00000010").glob("*.safetensors"))
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        push_run(folder, url)
    assert HeadObject(ObjectStore(url)).read() is None


def test_a_damaged_checkpoint_is_not_pulled(folder, url, tmp_path):
    push_run(folder, url)
    store = ObjectStore(url)
    name = next(name for name in objects(url) if name.endswith(".safetensors/00000"))
    data = bytearray(store.get(name, 10**6).data)
    data[-1] ^= 1
    store.put(name, bytes(data))
    with pytest.raises(CheckpointError, match="damaged"):
        pull_run(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    store.delete([name])
    with pytest.raises(CheckpointError):
        pull_run(url, tmp_path / "back")


def test_a_checkpoint_whose_header_does_not_match_its_files_is_not_pulled(folder, url, tmp_path):
    """The parts are intact, but the header names different hashes."""
    checkpoint = folder / "checkpoints" / "step-00000010"
    push_run(folder, url)
    header = read_header(checkpoint)
    files = [file.model_copy(update={"sha256": "0" * 64}) for file in header.files]
    rewrite_header(checkpoint, files=files)
    head = HeadObject(ObjectStore(url)).read()
    name = f"{head.checkpoints[checkpoint.name]}/checkpoint.json"
    ObjectStore(url).put(name, (checkpoint / "checkpoint.json").read_bytes())
    with pytest.raises(CheckpointError, match="damaged"):
        pull_run(url, tmp_path / "back")


def test_a_pull_does_not_replace_a_folder_that_contains_files(folder, url, tmp_path):
    push_run(folder, url)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(RunMismatchError, match="name a new folder"):
        pull_run(url, tmp_path / "there")
    (tmp_path / "there" / "file").unlink()
    pull_run(url, tmp_path / "there")
    assert content(tmp_path / "there") == content(folder)


def test_a_pull_from_a_url_without_a_run_is_refused(url, tmp_path):
    with pytest.raises(RunMismatchError, match="no run"):
        pull_run(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_driver_s_copy_of_a_run_can_be_pushed_to_another_url(large, url, tmp_path):
    """The checkpoints of such a copy have no state files."""
    push_run(large, url)
    node = RunFolder(tmp_path / "node")
    with RunMirror(url, node, lambda text: None):
        pass
    assert not list(node.path.rglob("*.safetensors"))
    push_run(node.path, f"{url}-moved")
    pull_run(f"{url}-moved", tmp_path / "back")
    assert content(tmp_path / "back") == content(large)


def test_a_push_does_not_follow_symbolic_links(folder, url, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "link.txt").symlink_to(secret)
    push_run(folder, url)
    assert "link.txt" not in HeadObject(ObjectStore(url)).read().files


def test_a_push_of_a_folder_without_a_run_is_refused(url, tmp_path):
    with pytest.raises(RunMismatchError):
        push_run(tmp_path, url)
    assert not (tmp_path / "owners").exists()
    assert Path(tmp_path).exists()


def test_a_pulled_run_is_synced_before_it_gets_its_name(large, url, tmp_path, monkeypatch):
    """Otherwise a power failure could leave an incomplete checkpoint under its final name."""
    push_run(large, url)
    calls = record_disk_calls(monkeypatch)
    pull_run(url, tmp_path / "pulled")
    *_, last, end = [at for at, (call, _) in enumerate(calls) if call == "rename"]
    synced = {path.relative_to(tmp_path).parts[1:] for _, path in calls[last + 1 : end]}
    target = tmp_path / "pulled"
    assert synced == {path.relative_to(target).parts for path in [target, *target.rglob("*")]}
    assert calls[end:] == [("rename", target), ("sync", tmp_path)]


def test_many_files_are_pushed_and_pulled(folder, url, tmp_path):
    (folder / "translations").mkdir()
    for number in range(100):
        (folder / "translations" / f"{number}.txt").write_text(str(number))
    push_run(folder, url)
    (folder / "translations" / "0.txt").write_text("changed")
    push_run(folder, url)
    check_no_orphans(url, "after two pushes")
    pull_run(url, tmp_path / "back")
    for number in range(100):
        text = (tmp_path / "back" / "translations" / f"{number}.txt").read_text()
        assert text == (str(number) if number else "changed")


def test_a_push_of_too_many_files_is_refused_before_any_upload(folder, url, monkeypatch):
    monkeypatch.setattr(push_pull, "MAX_FILES", 5)
    monkeypatch.setattr(files, "MAX_FILES", 5)
    told = []
    for number in range(2):
        (folder / f"{number}.txt").write_text("x")
    push_run(folder, url, announce=told.append)
    assert told == ["The run has 4 small files, and can have 5"]
    for number in range(4):
        (folder / f"{number}.txt").write_text("x")
    before = {found.name for found in ObjectStore(url).list()}
    with pytest.raises(RunMismatchError):
        push_run(folder, url)
    assert {found.name for found in ObjectStore(url).list()} == before


@pytest.mark.parametrize("name", ["line\nbreak", "n" * 241, "/".join(40 * "d")])
def test_a_file_that_cannot_be_stored_is_reported_before_any_upload(folder, url, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(RunMismatchError, match=r"cannot be stored: its name .* Rename or remove"):
        push_run(folder, url)
    assert HeadObject(ObjectStore(url)).read() is None


def test_a_run_above_the_size_limit_is_pulled_only_with_a_higher_limit(folder, url, tmp_path):
    push_run(folder, url)
    for limit in (100, 4000):  # less than the record, and less than the state files
        with pytest.raises(RunMismatchError, match=rf"at most {limit:,}\. .*--max-bytes"):
            pull_run(url, tmp_path / "back", max_bytes=limit)
    assert not (tmp_path / "back").exists()
    pull_run(url, tmp_path / "back", max_bytes=1_000_000)


def test_a_pull_does_not_follow_links_in_its_unfinished_folder(folder, url, tmp_path):
    push_run(folder, url)
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    unfinished, elsewhere = tmp_path / f".back.{digest}.unfinished", tmp_path / "elsewhere"
    elsewhere.mkdir()
    unfinished.symlink_to(elsewhere)
    with pytest.raises(RunMismatchError, match=f"{unfinished} is not a folder of yours"):
        pull_run(url, tmp_path / "back")
    unfinished.unlink()
    unfinished.mkdir()
    (unfinished / ".run.json.unfinished").symlink_to(elsewhere / "victim")
    pull_run(url, tmp_path / "back")
    assert list(elsewhere.iterdir()) == []


def test_checkpoints_of_a_copied_folder_send_no_requests(folder, url, tmp_path):
    """The folder was copied from another place; its checkpoints name a bucket."""
    push_run(folder, url)
    with RunMirror(url, RunFolder(tmp_path / "node"), lambda text: None):
        pass
    shutil.copytree(tmp_path / "node", tmp_path / "foreign")
    [path] = list_checkpoints(tmp_path / "foreign" / "checkpoints")
    with pytest.raises(CheckpointError):
        Checkpoint(path).verify()
    [path] = list_checkpoints(tmp_path / "node" / "checkpoints")
    Checkpoint(path).verify()
