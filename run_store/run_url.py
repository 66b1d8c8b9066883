"""URLs of runs in an object store."""

import os
from urllib.parse import urlsplit

from foundation.location import Location
from run_store.errors import RunMismatchError

RUN_SCHEMES = ("s3", "gs", "az")
# Largest size of a run that is copied without the user's explicit request.
MAX_RUN_BYTES = 50 * 10**9


def is_run_url(text: str | os.PathLike[str]) -> bool:
    """Return whether a run's name is a URL with one of the `RUN_SCHEMES`."""
    scheme, colon, _ = os.fspath(text).partition(":")
    return bool(colon) and scheme in RUN_SCHEMES


def run_url(text: str | os.PathLike[str]) -> Location:
    """Return the URL of a run, in the form that all commands use.

    Args:
        text: the URL as given; `pathlib` may have removed one of its two slashes.

    Raises:
        RunMismatchError: the URL names no bucket or no run.
        LocationError: the URL carries a credential.
    """
    url = prefix_url(text)
    if not urlsplit(url).path.strip("/"):
        raise RunMismatchError(
            f"{url} is not the URL of a run, expected {'|'.join(RUN_SCHEMES)}://BUCKET/PREFIX/NAME"
        )
    return url


def prefix_url(text: str | os.PathLike[str]) -> Location:
    """Return the URL of a bucket or prefix that holds runs, in the form that all commands use.

    Args:
        text: the URL as given; `pathlib` may have removed one of its two slashes.

    Raises:
        RunMismatchError: the URL names no bucket.
        LocationError: the URL carries a credential.
    """
    scheme, _, rest = os.fspath(text).partition(":")
    url = Location(f"{scheme}://{rest.strip('/')}")
    if scheme not in RUN_SCHEMES or not urlsplit(url).netloc:
        raise RunMismatchError(
            f"{url} names no bucket, expected {'|'.join(RUN_SCHEMES)}://BUCKET/PREFIX"
        )
    return url
