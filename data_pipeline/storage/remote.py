"""Remote files: how http, https, s3 and gs are reached, and how long to wait for another try."""

import logging
import random
import time
from typing import Any
from urllib.parse import urlsplit

import fsspec

REMOTE_SCHEMES = ("http", "https", "s3", "gs")
RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0)
CONNECT_TIMEOUT_SECONDS = 10.0
STALL_TIMEOUT_SECONDS = 30.0  # longest wait for the next byte

logger = logging.getLogger(__name__)
# A generator of its own: the global one's state belongs to whoever seeded it.
_jitter = random.SystemRandom()


def file_system(
    url: str,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS,
) -> Any:
    """fsspec's file system for a URL of one of the REMOTE_SCHEMES.

    Ask for it each time: fsspec keeps one connection pool per process, and a pool that was made
    before a fork does not work after it.

    Raises:
        ImportError: s3fs or gcsfs is missing.
    """
    scheme = urlsplit(url).scheme
    assert scheme in REMOTE_SCHEMES, url
    options = {}
    if scheme.startswith("http"):
        # Imported here because it takes a third of a second, which local files never need.
        from aiohttp import ClientTimeout

        # aiohttp's own default would end every download after five minutes.
        timeout = ClientTimeout(
            total=None, connect=connect_timeout_seconds, sock_read=stall_timeout_seconds
        )
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # proxies
    return fsspec.filesystem(scheme, **options)


def wait_before_retry(delay_seconds: float, what: str, reason: object) -> None:
    """Sleeps for a random time near the delay, since all workers of a run miss a server at once."""
    wait_seconds = delay_seconds * _jitter.uniform(0.5, 1.5)
    logger.warning("%s is tried again in %.1f s: %s", what, wait_seconds, reason)
    time.sleep(wait_seconds)
