"""Local copies of stored runs for readers: current, shared, and confined to their folders."""

import hashlib
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.cluster.processes import wait_until
from support.dashboard.running import RunningDashboard
from support.files.disk_calls import by_name, record_disk_calls
from support.records.checkpoints import make_header, save_checkpoint
from support.records.lines import train_line
from support.records.run_folders import made_run, with_status
from support.storage.commits import check_no_orphans
from support.storage.fault_proxy import Answer

from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from foundation.shown_urls import problem_of, url_of, with_urls
from foundation.terminal import Terminal
from run_store.checkpoints.averaging import average
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from run_store.lease import OwnerMetadata, this_process
from run_store.record.run_status import run_status_of
from run_store.remote import view_cache, views
from run_store.remote.changes import add_checkpoint
from run_store.remote.files import FileObjects
from run_store.remote.head import HEAD, HeadObject, RunHead
from run_store.remote.mirror import RunMirror
from run_store.remote.pull import RunView, run_view
from run_store.remote.push_pull import push_run
from run_store.remote.views import PrefixView, ViewFollower, view_of
from run_store.run_copies import view_folder
from run_store.run_url import prefix_url, run_url
from transloom.observe.terminal.run_feed import FolderFeed, RunFeed

pytestmark = pytest.mark.usefixtures("s3_environment")

SECONDS = 60.0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prefix(s3_server):
    return f"{s3_server.bucket('views')}/our/runs"


@pytest.fixture
def url(prefix, tmp_path):
    """Push a run that no process trains, and return its URL."""
    push_run(made_run(tmp_path / "made" / "one", train_line(1)), f"{prefix}/one")
    return f"{prefix}/one"


@pytest.fixture
def trained(url, tmp_path):
    """The mirror of a driver that trains the run in `tmp_path / "node"`."""
    with RunMirror(url, RunFolder(tmp_path / "node"), lambda text: None) as mirror:
        yield mirror


def refreshed(url):
    view = view_of(url)
    view.refresh()
    return view


def record(step, node):
    with (node / "metrics.jsonl").open("a") as file:
        file.write(train_line(step).to_json() + "\n")
    with_status(node)


def test_a_view_has_the_status_of_the_run_and_shows_its_url(url, trained, tmp_path):
    view = run_view(url)
    assert view.name == "one"
    assert url_of(view) == url == RunFolder(view).location
    assert with_urls(f"see {view}/log.txt") == f"see {url}/log.txt"
    status = run_status_of(view)
    assert (status.state, status.step, status.path) == ("training", 1, str(view))
    record(2, tmp_path / "node")
    assert trained.flush(SECONDS)
    assert run_status_of(run_view(url)).step == 2


def test_several_processes_share_the_copy_of_a_run(url, trained, tmp_path):
    """Threads with separate views act as processes: a file lock belongs to an opened file."""
    over = threading.Event()

    def follow(_):
        view = RunView(url)
        while not over.is_set():
            view.refresh()
            lines = (view.folder / "metrics.jsonl").read_text().splitlines()
            assert [json.loads(line)["step"] for line in lines] == [*range(1, len(lines) + 1)]

    with ThreadPoolExecutor(3) as pool:
        following = [pool.submit(follow, n) for n in range(3)]
        for step in range(2, 10):
            record(step, tmp_path / "node")
            assert trained.flush(SECONDS)
        over.set()
        for one in following:
            one.result()
    assert run_status_of(run_view(url)).step == 9


def test_a_follower_keeps_the_last_state_while_the_store_does_not_answer(
    url, trained, fault_proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(views, "REFRESH_SECONDS", 0.05)
    view, told = refreshed(url), []
    feed = RunFeed(view.folder)
    with ViewFollower(view, told.append):
        record(2, tmp_path / "node")
        assert trained.flush(SECONDS)
        wait_until(lambda: feed.poll() or feed.run_status.step == 2)
        fault_proxy.fail(Answer(403))
        problem = wait_until(lambda: problem_of(view.folder))
        assert "not current" in problem
        assert url in problem
        [owner] = (view.folder / "owners").iterdir()
        os.utime(owner, (0.0, 0.0))  # as if the heartbeat were old
        wait_until(lambda: run_status_of(view.folder).state == "training")
        feed.poll()
        assert problem in [row.text for row in feed.rows(200) if row.label == "problem"]
        assert not feed.is_over
        assert feed.summary().startswith(f"{url}: step 2")
        fault_proxy.heal()
        wait_until(lambda: not problem_of(view.folder))
    assert told == [problem]


def test_the_view_of_a_prefix_is_a_folder_of_its_runs(prefix, url, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(views, "REFRESHES_PER_LISTING", 1)
    view = refreshed(prefix)
    assert isinstance(view, PrefixView)
    assert view.has_runs
    assert [path.name for path in view.folder.iterdir()] == ["one"]
    push_run(made_run(tmp_path / "two", train_line(1), train_line(2)), f"{prefix}/two")
    push_run(made_run(tmp_path / "deeper", train_line(1)), f"{prefix}/more/deeper")
    feed = FolderFeed(view.folder)
    view.refresh()
    feed._next_look = 0.0
    feed.poll()
    assert sorted(row["name"] for row in feed.to_json()) == ["one", "two"]
    assert feed.summary().startswith(f"{prefix}: 2 runs")
    store = ObjectStore(f"{prefix}/one")
    store.delete([object.name for object in store.list()])
    view.refresh()
    assert [path.name for path in view.folder.iterdir()] == ["two"]


def test_a_list_of_runs_needs_two_small_requests_per_run(prefix, url, tmp_path, fault_proxy):
    push_run(made_run(tmp_path / "two", train_line(1), train_line(2)), f"{prefix}/two")
    view = PrefixView(prefix, only=("status.json",))
    fault_proxy.log.clear()
    view.refresh()
    assert [run_status_of(view.folder / name).step for name in ("one", "two")] == [1, 2]
    asked = sorted((request.kind, request.path.split("?")[0]) for request in fault_proxy.log)
    assert [kind for kind, _ in asked] == ["GET"] * 4 + ["LIST"]
    assert {path.split("/")[-2] for _, path in asked[:4]} == {"one", "two", "status.json"}
    fault_proxy.log.clear()
    view.refresh()
    assert [request.path.split("/")[-1] for request in fault_proxy.log] == [HEAD] * 2


def test_the_dashboard_shows_the_runs_of_a_prefix(prefix, url, tmp_path, cache):
    view = refreshed(prefix)
    with RunningDashboard(view.folder) as running:
        answers = [running.get(path).body.decode() for path in ("/api/runs", "/api/runs/one")]
        assert all(str(cache) not in answer for answer in answers)
        table = json.loads(answers[0])
        assert (table["folder"], table["problems"]) == (prefix, [])
        assert [run["standing"]["path"] for run in table["runs"]] == [url]
        with ViewFollower(view) as follower:
            follower._view = Away(view)
            follower._refresh()
            table = running.get("/api/runs").json
            assert table["problems"] == ["the state shown is not current: away"]
            assert len(table["runs"]) == 1
            follower._view = view
            follower._refresh()
        assert running.get("/api/runs").json["problems"] == []


class Away:
    """A view of a store that does not answer."""

    def __init__(self, view):
        self.folder, self.preserve = view.folder, view.preserve

    def refresh(self):
        raise ObjectStoreError("away")


def test_a_damaged_run_does_not_hide_other_runs_of_its_prefix(prefix, url):
    ObjectStore(f"{prefix}/broken").put(HEAD, b"{}{")
    ObjectStore(f"{prefix}/{'long' * 70}").put(HEAD, RunHead().model_dump_json().encode())
    view = refreshed(prefix)
    assert {"one"} <= {path.name for path in view.folder.iterdir()}
    assert any(f"{prefix}/broken/{HEAD} is damaged" in problem for problem in view.problems)
    assert any("too long" in problem for problem in view.problems)
    assert len(view.problems) == 2


def stored(store, data=b"x", name="a", **changes):
    """Store an object, and return the entry of its file in a head."""
    file = FileObjects(bytes=len(data), chunks=["1-" + hashlib.sha256(data).hexdigest()[:32]])
    store.put(file.objects(name)[0], data)
    return file.model_dump() | changes


BAD_HEADS = {
    "time": lambda store: {"files": {"a": stored(store, modified=1e308)}},
    "owner": lambda store: {"owner": {"number": 1, "renewed": 1e308}},
    "depth": lambda store: {"files": {"/".join(2_000 * ["d"]): stored(store)}},
    "longer": lambda store: {"files": {"a": stored(store, b"xy", bytes=1)}},
    "shorter": lambda store: {"files": {"a": stored(store, b"xy", bytes=3)}},
    "size": lambda store: {"files": {"a": stored(store, bytes=2**40)}},
    "object": lambda store: {"files": {"a": stored(store, chunks=["a/../b"])}},
    "missing": lambda store: {"files": {"a": stored(store, chunks=["9-" + "0" * 32])}},
    "folder": lambda store: {
        "files": {"a": stored(store), "a/b": stored(store, b"ab", name="a/b")}
    },
    "surrogate": lambda store: {"files": {"a\udcff": stored(store)}},
    "checkpoint": lambda store: {"checkpoints": {"step-00000001": "owners/none"}},
}


@pytest.mark.matrix
@pytest.mark.parametrize("kind", BAD_HEADS)
def test_a_run_with_an_invalid_head_is_reported_and_the_others_are_fetched(prefix, url, kind):
    bad = ObjectStore(f"{prefix}/bad")
    values = {"owner": {"number": 1, "released": True}}
    bad.put(HEAD, json.dumps(values | BAD_HEADS[kind](bad)).encode())
    view = refreshed(prefix)
    [problem] = view.problems
    assert f"{prefix}/bad" in problem
    assert (view.folder / "one" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["a?b", "user:pw@host", "a#b", "n" * 240 + "ä" * 40])
def test_a_folder_whose_name_cannot_be_in_a_url_hides_no_run(prefix, url, name):
    ObjectStore(prefix).put(f"{name}/{HEAD}", b"{")
    view = refreshed(prefix)
    assert (view.folder / "one" / "metrics.jsonl").exists()
    assert len(view.problems) == 1


def test_an_unexpected_exception_is_reported_for_its_run(prefix, url, tmp_path, monkeypatch):
    push_run(made_run(tmp_path / "two", train_line(1)), f"{prefix}/two")
    refresh = RunView.refresh

    def refresh_one(view):
        if view.url.endswith("/two"):
            raise OverflowError("timestamp out of range")
        return refresh(view)

    monkeypatch.setattr(RunView, "refresh", refresh_one)
    view = refreshed(prefix)
    [problem] = view.problems
    assert f"{prefix}/two cannot be read: OverflowError" in problem


def test_a_follower_continues_after_an_unexpected_exception(url, monkeypatch, caplog):
    view, told = refreshed(url), []
    monkeypatch.setattr(views, "REFRESH_SECONDS", 0.01)
    with ViewFollower(view, told.append):
        with monkeypatch.context() as patch:
            patch.setattr(RunView, "refresh", lambda view: 1 // 0)
            problem = wait_until(lambda: problem_of(view.folder))
        assert "ZeroDivisionError" in problem
        wait_until(lambda: problem_of(view.folder) is None)
    assert told == [problem]
    assert [of.exc_info[0] for of in caplog.records] == [ZeroDivisionError]


def test_a_run_larger_than_the_cache_is_refused_before_fetching(url, monkeypatch):
    monkeypatch.setattr(view_cache, "MAX_CACHE_BYTES", 100)
    with pytest.raises(RunMismatchError):
        run_view(url)
    assert not (view_folder(url) / "metrics.jsonl").exists()


def snapshot(folder, without):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and without not in path.parents
    }


@pytest.mark.matrix
@pytest.mark.parametrize(
    "damage",
    [
        {"files": {"../other/metrics.jsonl": None}},
        {"files": {"a/../../../x": None}},
        {"files": {"/tmp/x": None}},
        {"files": {"..\\x": None}},
        {"files": {"%2e%2e/x": None}},
        {"files": {".lock": None}},
        {"files": {"owners/00000009.json": None}},
        {"files": {"../x": None}},
        {"checkpoints": {"../../x": "owners/00000001/c"}},
        {"checkpoints": {"step-00000001": "../two/owners/00000001/c"}},
        {"checkpoints": {".": "owners/00000001/c"}},
    ],
)
def test_a_hostile_head_writes_nothing_outside_of_the_view(url, cache, tmp_path, damage):
    """The objects exist, so only the names can cause the refusal."""
    store = ObjectStore(url)
    head = HeadObject(store).read()
    file = head.files["metrics.jsonl"].model_dump()
    values = {
        field: {name: file if value is None else value for name, value in names.items()}
        for field, names in damage.items()
    }
    run_view(url)
    view = view_folder(url)
    before = snapshot(tmp_path, view)
    bad = json.loads(head.model_dump_json()) | values
    store.put(HEAD, json.dumps(bad).encode())
    with pytest.raises(RunMismatchError):
        run_view(url)
    assert snapshot(tmp_path, view) == before


def test_links_in_a_view_are_replaced_and_not_followed(url, trained, tmp_path):
    """Another user has put a link into the cache."""
    view, victim = run_view(url), tmp_path / "victim"
    victim.write_text((view / "metrics.jsonl").read_text())
    (view / "metrics.jsonl").unlink()
    (view / "metrics.jsonl").symlink_to(victim)
    record(2, tmp_path / "node")
    assert trained.flush(SECONDS)
    run_view(url)
    assert victim.read_text().count("\n") == 1
    assert (view / "metrics.jsonl").read_text().count("\n") == 2


def test_urls_are_normalized_and_views_of_a_prefix_share_a_folder():
    assert prefix_url("s3:/bucket") == "s3://bucket" == prefix_url("s3://bucket/")
    assert run_url("s3:/bucket/a/b/") == "s3://bucket/a/b"
    for text in ("s3://", "http://host/x"):
        with pytest.raises(RunMismatchError, match="expected s3"):
            prefix_url(text)
    assert view_folder("s3://b/p/one").parent == view_folder("s3://b/p/two").parent
    assert view_folder("s3://b/p/one").parent != view_folder("s3://b/q/one").parent


def test_a_table_of_runs_shows_the_problem_of_the_store(prefix, url):
    view = refreshed(prefix)
    feed = FolderFeed(view.folder)
    console = Terminal(width=300)
    with console.capture() as captured:
        console.print(feed)
    assert prefix in captured.get()
    assert "not current" not in captured.get()
    with ViewFollower(Away(view)) as follower:
        follower._refresh()
        with console.capture() as captured:
            console.print(feed)
        assert "the state shown is not current: away" in captured.get()
        follower._view = view
        follower._refresh()


def test_a_removed_view_is_fetched_again_completely(url):
    view = run_view(url)
    shutil.rmtree(view)
    assert (run_view(url) / "run.json").exists()


class ScriptedView:
    """A view that fails as scripted, and then refreshes successfully."""

    def __init__(self, folder, failures):
        self.folder = folder
        self.preserved = 0
        self.over = threading.Event()
        self._failures = iter(failures)

    def refresh(self):
        match next(self._failures, None):
            case None:
                self.over.set()
            case str() as failure:
                raise ObjectStoreError(failure)

    def preserve(self):
        self.preserved += 1


def test_each_outage_of_the_store_is_announced_once(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "REFRESH_SECONDS", 0.001)
    announced = []
    view = ScriptedView(tmp_path, ["away", "still away", False, False, "away again", "away", False])
    with ViewFollower(view, announced.append):
        assert view.over.wait(SECONDS)
    assert [text.rpartition(": ")[2] for text in announced] == ["away", "away again"]
    assert view.preserved == 4
    assert problem_of(tmp_path) is None


def renew(url, seconds_ago):
    """Renew the lease as an owner on another machine would have done some seconds ago."""

    def change(now):
        process = this_process() | {"host": "elsewhere"}
        owner = now.owner.model_copy(
            update={
                "process": OwnerMetadata.model_validate(process),
                "released": False,
                "renewals": now.owner.renewals + 1,
                "renewed": time.time() - seconds_ago,
            }
        )
        return now.model_copy(update={"owner": owner})

    HeadObject(ObjectStore(url)).change(change)


def heartbeat_age(view):
    (file,) = (view.folder / "owners").iterdir()
    return time.time() - file.stat().st_mtime


def test_a_refreshed_view_has_the_newest_heartbeat_of_the_owner(url):
    view = RunView(url)
    for seconds_ago in (900, 500, 100):
        renew(url, seconds_ago)
        view.refresh()
        assert seconds_ago <= heartbeat_age(view) < seconds_ago + 90


def test_a_silent_owner_does_not_look_alive_during_an_outage(url):
    renew(url, 600)
    view = RunView(url)
    view.refresh()
    for _ in range(2):
        view.preserve()
        assert 590 <= heartbeat_age(view) < 690


def average_of(folder, steps):
    checkpoints = folder / "checkpoints"
    shutil.rmtree(checkpoints, ignore_errors=True)
    for step in steps:
        tensor = torch.full((4,), float(step))
        save_checkpoint(checkpoints, make_header(step), [[Fragment("master", "w", 0, tensor)]])
    made = average(checkpoints, [Checkpoint(path) for path in list_checkpoints(checkpoints)])
    return made if isinstance(made, Checkpoint) else Checkpoint(made)


def test_a_copied_checkpoint_is_synced_before_it_gets_its_name(url, tmp_path, monkeypatch):
    """After a power failure, a driver then does not set aside a checkpoint that the store has."""
    made = average_of(tmp_path / "averages", (10, 20))
    add_checkpoint(url, made)
    view, calls = RunView(url), record_disk_calls(monkeypatch)
    view.refresh()
    target = view.folder / "checkpoints" / made.path.name
    end = calls.index(("rename", target))
    assert sorted(by_name(calls[end - 3 : end])) == [
        ("sync", f".unfinished-{target.name}"),
        ("sync", "checkpoint.json"),
        ("sync", "parts.json"),
    ]
    assert calls[end + 1] == ("sync", target.parent)


def test_a_replaced_checkpoint_is_fetched_again(url, tmp_path):
    """A refreshed view and another process that shares its folder both read the new checkpoint."""
    view = RunView(url)
    for steps, expected in (((10, 20), 15.0), ((30, 50), 40.0)):
        made = average_of(tmp_path / "averages", steps)
        stored = made.path.rename(made.path.with_name("average-of-10-20"))
        add_checkpoint(url, Checkpoint(stored))
        view.refresh()
        for reader in (view, RunView(url)):
            reader.refresh()
            weights = CheckpointReader(Checkpoint(reader.folder / "checkpoints" / stored.name))
            assert weights.weights()["w"].tolist() == [expected] * 4
        check_no_orphans(url, "after a replacement")


def test_a_damaged_run_is_one_problem_until_it_is_repaired(prefix, url):
    store = ObjectStore(url)
    intact = store.get(HEAD, 10**7).data
    view = PrefixView(prefix)
    for data, problems in ((b"{", 1), (b"{", 1), (intact, 0), (b"[]", 1), (intact, 0)):
        store.put(HEAD, data)
        view.refresh()
        assert len(view.problems) == problems
        assert all(url in problem for problem in view.problems)
