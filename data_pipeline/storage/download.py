"""Downloads of whole files by URL: http, https, s3 and gs, through fsspec.

Transient failures, such as a server's 500 or a lost connection, are retried with a delay.
"""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import TooManyBytesError
from data_pipeline.storage.passwords import PASSWORDS
from data_pipeline.storage.remote import (
    REMOTE_SCHEMES,
    RETRY_DELAYS_SECONDS,
    ByteLimit,
    error_reason,
    file_system,
    wait_before_retry,
)
from foundation.location import Location
from foundation.optional_packages import install_command

MAX_DISK_SHARE = 0.95  # maximum share of the free bytes that a download may take


def download(url: str, path: Path) -> None:
    """Download a file to `path`.

    The size of the file is unknown. The download stops before the disk is full, in case the server
    never stops sending.

    Raises:
        CorpusError: the download has failed; the message has the remedy.
        LocationError: the URL carries a credential, or the netrc file cannot be read.
    """
    source = _file_system(Location(url))
    most = int(shutil.disk_usage(path.parent).free * MAX_DISK_SHARE)
    for delay in (*RETRY_DELAYS_SECONDS, None):
        try:
            source.get_file(url, str(path), callback=ByteLimit(most))
            return
        except TooManyBytesError as error:
            raise CorpusError(
                f"{url} does not fit on the disk of {path.parent}: expected at most {most:,} "
                f"bytes, {MAX_DISK_SHARE:.0%} of the free space, found {error.found}. Free disk "
                "space, or name another folder with data.cache=FOLDER."
            ) from error
        # Each backend raises different exceptions.
        except Exception as error:
            reason = error_reason(error)
            if delay is None or not _is_transient(error):
                raise CorpusError(
                    f"{url} cannot be downloaded ({reason}). Check the address, the network and, "
                    f"if the server requires a password, {PASSWORDS}; or put the file into a "
                    "folder and name it with data.mirror=FOLDER."
                ) from None
        wait_before_retry(delay, url, reason)


def _file_system(url: Location) -> Any:
    scheme = urlsplit(url).scheme
    if scheme not in REMOTE_SCHEMES:
        raise CorpusError(
            f"{url} has the scheme {scheme!r}, expected one of file, {', '.join(REMOTE_SCHEMES)}. "
            "Correct the location, or download the file and give its path."
        )
    try:
        return file_system(url)
    except ImportError as error:
        raise CorpusError(
            f"{url} needs a package that is not installed ({error}). Install it with "
            f"{install_command(scheme)}, or put the file into a folder and name it with "
            "data.mirror=FOLDER."
        ) from error


def _is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    return not isinstance(error, FileNotFoundError | PermissionError | ValueError)
