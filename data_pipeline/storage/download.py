"""Downloads of whole files by URL: http, https, s3, gs and az.

Transient failures, such as a server's 500 or a lost connection, are retried with a delay.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.object_errors import ObjectAccessError
from data_pipeline.storage.object_store import OBJECT_SCHEMES, ObjectStore
from data_pipeline.storage.passwords import PASSWORDS
from data_pipeline.storage.remote import (
    REMOTE_SCHEMES,
    RETRY_DELAYS_SECONDS,
    download_over_http,
    error_reason,
    wait_before_retry,
)
from foundation.errors import LocationError
from foundation.location import Location
from foundation.proxies import proxy_hint

MAX_DISK_SHARE = 0.95  # maximum share of the free bytes that a download may take


def download(url: str, path: Path) -> None:
    """Download a file to `path`.

    The size of the file is unknown. The download stops before the disk is full, in case the server
    never stops sending.

    Raises:
        CorpusError: the download has failed; the message has the remedy.
        LocationError: the URL carries a credential or names no object, or the netrc file cannot be
            read.
    """
    fetch = _fetch_of(Location(url))
    most = int(shutil.disk_usage(path.parent).free * MAX_DISK_SHARE)
    for delay in (*RETRY_DELAYS_SECONDS, None):
        try:
            fetch(path, most)
            return
        except TooManyBytesError as error:
            raise CorpusError(
                f"{url} does not fit on the disk of {path.parent}: expected at most {most:,} "
                f"bytes, {MAX_DISK_SHARE:.0%} of the free space, found {error.found}. Free disk "
                "space, or name another folder with data.cache=FOLDER."
            ) from error
        except LocationError:
            raise
        # Each backend raises different exceptions.
        except Exception as error:
            reason = error_reason(error)
            if delay is None or not _is_transient(error):
                raise CorpusError(
                    f"{url} cannot be downloaded ({reason}{proxy_hint(url)}). Check the address, "
                    f"the network{_credentials_of(url)}; or put the file into a folder and name "
                    "it with data.mirror=FOLDER."
                ) from None
        wait_before_retry(delay, url, reason)


def _fetch_of(url: Location) -> Callable[[Path, int], None]:
    """Return the function that tries once to download a URL to a path, up to a number of bytes."""
    scheme = urlsplit(url).scheme
    if scheme not in REMOTE_SCHEMES:
        raise CorpusError(
            f"{url} has the scheme {scheme!r}, expected one of file, {', '.join(REMOTE_SCHEMES)}. "
            "Correct the location, or download the file and give its path."
        )
    if scheme in OBJECT_SCHEMES:
        store, name = ObjectStore.of_object(url)
        return partial(store.download, name)
    return partial(download_over_http, url)


def _credentials_of(url: str) -> str:
    if urlsplit(url).scheme in OBJECT_SCHEMES:
        return " and the credentials in the environment"
    return f" and, if the server requires a password, {PASSWORDS}"


def _is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    lasting = FileNotFoundError | PermissionError | ObjectAccessError | ValueError
    return not isinstance(error, lasting)
