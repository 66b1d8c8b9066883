"""`jobs retry` uses no file of variables that only a record names."""

import os
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from transloom.cli.jobs import _require_named_environment


def test_a_file_that_the_user_names_and_owns_is_used(tmp_path):
    keys = tmp_path / "keys.env"
    keys.touch()
    _require_named_environment(str(keys), keys, "mine")
    _require_named_environment(None, None, "mine")
    _require_named_environment("/on/the/nodes.env", Path("/on/the/nodes.env"), "mine")


@pytest.mark.parametrize(
    ("recorded", "named", "remedy"),
    [
        ("/secure/my keys.env", None, r"add --env-file '/secure/my keys\.env'"),
        ("/secure/keys.env", Path("/secure/other.env"), r"add --env-file /secure/keys\.env"),
        (None, Path("/secure/keys.env"), "Omit --env-file"),
    ],
)
def test_a_file_that_only_the_record_names_is_refused(recorded, named, remedy):
    with pytest.raises(ClusterError, match=rf"record of mine .*{remedy}"):
        _require_named_environment(recorded, named, "mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path):
    keys = tmp_path / "keys.env"
    keys.touch()
    os.chown(keys, 12345, 12345)
    with pytest.raises(ClusterError, match="another user"):
        _require_named_environment(str(keys), keys, "mine")
