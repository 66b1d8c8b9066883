"""Files that ranks write on a node reach the run, in spite of failures of the object store."""

import pytest
from support.records.checkpoints import make_header
from support.storage.commits import check_no_orphans, check_run, driving
from support.storage.fault_proxy import Answer, FaultProxy

from cluster.ranks.node_mirror import RANK_FILES, SHARED_RANK_FILES, NodeMirror
from data_pipeline.storage.object_errors import ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from run_store.checkpoints.state_objects import PartList
from run_store.remote.head import HeadObject

SECONDS = 60.0
RECORD = "metrics.jsonl"


class Node:
    """Node and driver of a run that has a checkpoint of step 10."""

    def __init__(self, url, driver):
        driver.save(10)
        self.url, self.driver = url, driver
        self.mirror = NodeMirror(url)
        self.pull()

    def pull(self, *, is_first=True):
        self.mirror.pull(".work-2", with_files=is_first)

    def write(self, name, data, mode="wb"):
        path = self.mirror.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(data)

    def upload(self, names=RANK_FILES):
        again = self.driver.mirror.unavailable
        return self.mirror.upload_changes(names, self.driver.mirror.number, again)

    def collect(self):
        """Upload changes, wait until the driver has them, and return the files' names."""
        files, problems = self.upload()
        self.driver.mirror.add(files, problems)
        assert self.driver.mirror.flush(SECONDS)
        return files.keys()

    def stored(self):
        return HeadObject(ObjectStore(self.url)).read().files


@pytest.fixture
def url(s3_server, s3_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))
    return f"{s3_server.bucket('nodes')}/runs/one"


@pytest.fixture
def told():
    return []


@pytest.fixture
def node(url, tmp_path, told):
    with driving(url, tmp_path / "driver", told.append) as driver:
        yield Node(url, driver)
    check_no_orphans(url, "after the run")


def test_files_of_a_rank_reach_the_run_and_the_driver_s_folder(node, tmp_path):
    node.write(RECORD, b"11\n", "ab")
    node.write("wandb/offline/log", b"log")
    assert node.collect() == {RECORD, "wandb/offline/log"}
    assert node.collect() == set()
    for text in (b"12\n", b"13\n"):
        node.write(RECORD, text, "ab")
        assert node.collect() == {RECORD}
    assert node.driver.run.metrics.read_bytes() == b"10\n11\n12\n13\n"
    assert node.stored()[RECORD].bytes == 12
    assert check_run(node.url, tmp_path / "view", "with files of a node") == 10


def test_only_the_named_files_are_uploaded_and_links_are_not_followed(node, tmp_path):
    (tmp_path / "secret").write_text("secret")
    node.write("profile/steps/rank-1.json", b"1")
    node.write(RECORD, b"11\n", "ab")
    (node.mirror.folder / "profile" / "link").symlink_to(tmp_path / "secret")
    files, problems = node.upload(SHARED_RANK_FILES)
    assert (files.keys(), problems) == ({"profile/steps/rank-1.json"}, {})


def test_a_node_without_rank_0_uploads_no_file_of_a_former_attempt(node):
    node.write("profile/old", b"of the former attempt")
    node.collect()
    node.pull(is_first=False)
    node.write("profile/new", b"new")
    assert node.upload(SHARED_RANK_FILES)[0].keys() == {"profile/new"}


def test_a_file_removed_during_an_upload_does_not_delay_others(node, monkeypatch):
    for name in (RECORD, "profile/a", "translations/b"):
        node.write(name, b"1")
    names = [RECORD, "profile/a", "translations/b", "translations/removed"]
    monkeypatch.setattr("cluster.ranks.node_mirror.local_files", lambda folder: names)
    assert node.collect() == set(names[:3])


def test_the_driver_names_files_that_cannot_be_stored(node, told):
    node.write("wandb/line\nbreak", b"x")
    node.write("wandb/good", b"x")
    assert node.collect() == {"wandb/good"}
    assert any("'wandb/line\\nbreak' is not in" in text for text in told)


def test_files_uploaded_before_an_outage_are_reported_after_it(node, s3_server, monkeypatch):
    node.write(RECORD, b"11\n", "ab")
    node.write("wandb/log", b"log")
    with FaultProxy(s3_server.url) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.fail(Answer(403), "PUT", on={2})
        with pytest.raises(ObjectStoreError):
            node.upload()
    assert node.collect() == {RECORD, "wandb/log"}


def test_a_checkpoint_is_published_only_after_its_record(node):
    """The record's object is deleted before the driver adds it, and the node uploads it again."""
    node.write(RECORD, b"20\n", "ab")
    files, problems = node.upload()
    ObjectStore(node.url).delete(files[RECORD].objects(RECORD))
    node.driver.mirror.add(files, problems)
    node.driver.mirror.publish("next", make_header(20), PartList(files=[]))
    assert node.driver.mirror.flush(SECONDS)
    assert node.driver.mirror.unavailable == {RECORD}
    assert node.driver.mirror.take_published() == []
    assert node.collect() == {RECORD}
    assert node.driver.mirror.take_published() == ["step-00000020"]
    assert node.stored()[RECORD] == files[RECORD]
    assert node.driver.run.metrics.read_bytes() == b"10\n20\n"


def test_objects_that_no_head_names_yet_survive_the_deletion_of_leftovers(node):
    node.write(RECORD, b"11\n", "ab")
    files, problems = node.upload()
    node.driver.mirror.begin_attempt("next")
    assert node.driver.mirror.flush(SECONDS)
    node.driver.mirror.add(files, problems)
    assert node.driver.mirror.flush(SECONDS)
    assert node.stored()[RECORD] == files[RECORD]


def test_objects_replaced_by_later_uploads_are_deleted(node):
    for text in (b"11\n", b"12\n", b"13\n"):
        node.write(RECORD, text, "ab")
        node.driver.mirror.add(*node.upload())
    for text in (b"14\n", b"15\n"):
        node.write(RECORD, text, "ab")
        node.collect()
    assert node.driver.mirror.flush(SECONDS)
    names = [found.name for found in ObjectStore(node.url).list(f"{RECORD}/")]
    assert names == node.stored()[RECORD].objects(RECORD)
