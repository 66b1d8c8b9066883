"""Stores that cannot hold runs are refused before training starts."""

import pytest
from support.storage.fault_proxy import Answer

from data_pipeline.storage import object_store
from data_pipeline.storage.object_errors import ObjectAccessError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from run_store.errors import RunMismatchError
from run_store.remote.store_check import probe_store


def test_a_store_with_conditional_writes_is_accepted_and_left_empty(s3_server, s3_environment):
    store = ObjectStore(f"{s3_server.bucket('probe')}/runs/one")
    for _ in range(5):
        probe_store(store)
    assert list(store.list()) == []


def test_a_store_that_ignores_conditional_writes_is_refused(rclone_server, monkeypatch):
    for name, value in rclone_server.environment.items():
        monkeypatch.setenv(name, value)
    url = f"{rclone_server.bucket('probe')}/runs/one"
    with pytest.raises(RunMismatchError, match=rf"(?s){url} cannot hold runs.*--run FOLDER"):
        probe_store(ObjectStore(url))
    assert list(ObjectStore(url).list()) == []


def test_a_missing_bucket_is_an_access_error(s3_environment):
    with pytest.raises(ObjectAccessError):
        probe_store(ObjectStore("s3://no-such-bucket-anywhere/run"))


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (503, "SlowDown"), (400, "ExpiredToken")]
)
def test_the_error_of_a_store_that_refuses_all_writes_is_shown(
    s3_server, fault_proxy, monkeypatch, status, code
):
    monkeypatch.setattr(object_store, "_MAX_RETRIES", 0)
    url = f"{s3_server.bucket('probe')}/run"
    fault_proxy.fail(Answer(status, code), "PUT")
    with pytest.raises(ObjectStoreError, match=f"{status}.*{code}"):
        probe_store(ObjectStore(url))
    fault_proxy.heal()
    probe_store(ObjectStore(url))
