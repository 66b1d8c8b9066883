import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode

from cluster.errors import ClusterError
from cluster.ray.authentication import enable_authentication
from data_pipeline.storage.locations import cache_folder
from foundation.home import home_folder


@pytest.fixture
def new_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the home of a user who has never used Ray."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    AuthenticationTokenLoader.instance().reset_cache()


def token_of_this_process() -> str:
    return str(AuthenticationTokenLoader.instance().get_raw_token())


def test_a_new_token_is_secret_and_is_kept(new_user: Path) -> None:
    enable_authentication(create_token=True)
    assert get_authentication_mode() == AuthenticationMode.TOKEN
    folder, file = new_user / ".ray", new_user / ".ray" / "auth_token"
    assert re.fullmatch("[0-9a-f]{64}", file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(folder.iterdir()) == [file]
    assert token_of_this_process() == file.read_text()

    before = file.read_text()
    enable_authentication(create_token=True)
    assert file.read_text() == before


def test_the_token_that_was_created_first_is_kept(new_user: Path) -> None:
    from cluster.ray.authentication import _create_token

    file = new_user / ".ray" / "auth_token"
    _create_token(file)
    first = file.read_text()
    _create_token(file)
    assert file.read_text() == first
    assert list(file.parent.iterdir()) == [file]


def test_the_error_of_a_client_without_a_token_says_where_to_put_it(new_user: Path) -> None:
    with pytest.raises(ClusterError, match=r"this user has none.*ray get-auth-token.*auth_token"):
        enable_authentication(create_token=False)
    assert not (new_user / ".ray").exists()


def test_a_missing_token_file_is_reported(new_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(new_user / "nowhere"))
    with pytest.raises(ClusterError, match="nowhere"):
        enable_authentication(create_token=True)


def test_a_token_in_the_environment_needs_no_file(
    new_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    enable_authentication(create_token=True)
    assert token_of_this_process() == "a" * 64
    assert not (new_user / ".ray").exists()


def test_without_a_writable_home_the_token_is_only_in_the_environment(
    new_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that monkeypatch restores it
    os.environ.pop("RAY_AUTH_TOKEN")
    (new_user / ".ray").write_text("")  # prevents the folder, as a read-only file system would
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN"):
        enable_authentication(create_token=False)  # a new token would not be the cluster's
    enable_authentication(create_token=True)
    assert re.fullmatch("[0-9a-f]{64}", token_of_this_process())
    assert os.environ["RAY_AUTH_TOKEN"] == token_of_this_process()
    enable_authentication(create_token=True)
    assert os.environ["RAY_AUTH_TOKEN"] == token_of_this_process()


def test_the_home_of_a_user_without_an_account_is_the_root_folder(
    new_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 2)  # a user id without an account
    assert home_folder() == Path("/")
    assert cache_folder(None) == Path("/.cache/transloom")


def test_authentication_that_the_user_disabled_stays_disabled(
    new_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    enable_authentication(create_token=False)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert not (new_user / ".ray").exists()
