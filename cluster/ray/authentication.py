"""Ray's token authentication, enabled for every cluster that this program starts, joins or queries.

Anyone who reaches a Ray cluster can run code on it. The embedded cluster listens on the loopback
address, which other users of the machine can reach. Ray itself enables its token only in some
cases: `ray start` without an existing token starts an open cluster, and a client that is given an
address sends no token. This module sets RAY_AUTH_MODE before the first request to Ray, unless the
user has set it.
"""

import os
import secrets
from pathlib import Path

from ray.exceptions import AuthenticationError

from cluster.errors import ClusterError
from cluster.ray import private
from foundation.home import home_folder

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
REMEDY = (
    "put the cluster's token (`ray get-auth-token` on its head node prints it) into "
    "~/.ray/auth_token or RAY_AUTH_TOKEN, or set RAY_AUTH_MODE=disabled if the cluster runs "
    "without authentication on purpose"
)


def enable_authentication(*, create_token: bool) -> None:
    """Make this process and its children send a token, and require one in clusters that they start.

    Args:
        create_token: whether to create a token for this user if none exists; a new cluster needs
            one. If the user's home cannot be written, the token is in the environment of this
            process and its children only.

    Raises:
        ClusterError: no token exists and none may be created, or the token cannot be read.
    """
    if os.environ.setdefault(MODE_VARIABLE, "token").lower() != "token":
        return
    private.read_authentication_mode()
    try:
        if private.has_token():
            return
    except AuthenticationError as error:  # RAY_AUTH_TOKEN_PATH names a file that does not exist
        raise ClusterError(f"Ray's authentication token cannot be read: {error}") from error
    if not create_token:
        raise ClusterError(f"A Ray cluster requires a token, but this user has none: {REMEDY}")
    try:
        _create_token(home_folder() / ".ray" / "auth_token")
    except OSError:  # a read-only home, as in many containers
        os.environ[TOKEN_VARIABLE] = secrets.token_hex(32)
    private.forget_token()


def token_location() -> str | None:
    """Return where this user's token is, in words; None if clusters are used without a token."""
    if os.environ.get(MODE_VARIABLE, "token").lower() != "token":
        return None
    if os.environ.get(TOKEN_VARIABLE):
        return f"the variable {TOKEN_VARIABLE}"
    return os.environ.get(f"{TOKEN_VARIABLE}_PATH") or str(home_folder() / ".ray" / "auth_token")


def _create_token(path: Path) -> None:
    """Write a new token that only this user can read, unless another process has just written one.

    Ray's own function would make the file readable for all users, and would let two processes that
    start at the same time use different tokens.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(secrets.token_hex(32))
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
