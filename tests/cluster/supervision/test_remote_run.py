"""A run in an object store: what its supervisor waits for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.errors import RankLostError
from cluster.supervision.owned_run import RemoteRun
from trainer.runs.folder import RunFolder


@pytest.mark.parametrize("must_stop", [True, False])
def test_an_object_store_is_not_awaited_by_a_run_that_must_stop(tmp_path, must_stop):
    mirror = SimpleNamespace(
        url="s3://bucket/run", flush=lambda seconds, give_up: False, check=lambda: None
    )
    supply = SimpleNamespace(give_up=lambda: must_stop, separate_nodes=lambda nodes: {"b"})
    remote = RemoteRun(mirror, RunFolder(tmp_path), supply)
    if must_stop:
        assert remote.prepare_nodes(["a", "b"], Path("work")) == []
    else:
        with pytest.raises(RankLostError, match="s3://bucket/run has not received"):
            remote.prepare_nodes(["a", "b"], Path("work"))
