"""Targets of notifications: webhooks over HTTP, and commands.

The URLs of webhooks and the commands come from the environment of the driver. A URL is a secret:
no message of this module contains it, any part of it, or the text of an error that may quote it.

Redirects are not followed, because another host would receive the message. No answer is read
beyond its status and headers, which must arrive in time.
"""

import http.client
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from cluster.notify.notification import Notification
from foundation.proxies import bypass_proxies, proxy_hint
from trainer.notify_config import NotifyTarget

_PRINTABLE = re.compile(r"[!-~]+")
_TEMPORARY_STATUS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class TargetError(Exception):
    """The environment does not configure a target of the recipe."""


@dataclass(frozen=True)
class DeliveryProblem:
    """Reason why a target did not accept a notification.

    Attributes:
        text: the reason, without secrets.
        is_temporary: whether another attempt may succeed.
    """

    text: str
    is_temporary: bool = True


class DeliveryTarget(Protocol):
    """Recipient of notifications.

    Attributes:
        name: the name of the environment variable that configures it, and its kind.
    """

    name: str

    def send(self, notification: Notification, seconds: float) -> DeliveryProblem | None:
        """Make one attempt to deliver a notification; return the problem, or None.

        Args:
            seconds: time limit for each phase of the attempt.
        """

    def stop(self) -> None:
        """End an attempt of another thread if that is possible, because the process ends."""


class HttpTarget:
    """Webhook that receives a POST request for each notification."""

    def __init__(self, name: str, url: str, body: Callable[[Notification], bytes]) -> None:
        """Prepare requests to a valid URL."""
        bypass_proxies(url)
        self.name = name
        self._url = url
        self._body = body
        # Neither redirects, nor cookies, nor other schemes.
        self._opener = request.OpenerDirector()
        for handler in (
            request.ProxyHandler(),  # proxies of the environment
            _TimedHandler(),
            request.HTTPDefaultErrorHandler(),
            request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def send(self, notification: Notification, seconds: float) -> DeliveryProblem | None:
        post = request.Request(
            self._url,
            self._body(notification),
            {"Content-Type": "application/json", "User-Agent": "transloom"},
        )
        try:
            self._opener.open(post, timeout=seconds).close()
        except HTTPError as error:
            error.close()
            problem = _status_problem(error.code)
        except URLError as error:
            problem = _connection_problem(error.reason, seconds)
        except (OSError, http.client.HTTPException) as error:
            problem = _connection_problem(error, seconds)
        else:
            return None
        return replace(problem, text=f"{problem.text}{proxy_hint(self._url)}")

    def stop(self) -> None:
        """Do nothing: the thread of the attempt ends with the process."""


class CommandTarget:
    """Program that reads each notification from its standard input."""

    def __init__(self, name: str, argv: list[str], body: Callable[[Notification], bytes]) -> None:
        self.name = name
        self._argv = argv
        self._body = body
        self._process: subprocess.Popen[bytes] | None = None

    def send(self, notification: Notification, seconds: float) -> DeliveryProblem | None:
        try:
            process = subprocess.Popen(
                self._argv,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # neither Ctrl-C nor a closed terminal ends it
            )
        except OSError as error:
            return DeliveryProblem(f"the program cannot be started: {error.strerror}", False)
        self._process = process
        try:
            process.communicate(self._body(notification), timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return DeliveryProblem(f"the program did not end within {seconds:.3g} s")
        finally:
            self._process = None
        code = process.returncode
        return DeliveryProblem(f"the program ended with exit code {code}") if code else None

    def stop(self) -> None:
        if process := self._process:
            _kill(process)


def open_target(target: NotifyTarget, environment: Mapping[str, str]) -> DeliveryTarget:
    """Return a target with the URL or the command from the environment.

    Raises:
        TargetError: the variable is not set, or its value cannot be used. The message does not show
            the value.
    """
    value = environment.get(target.variable, "").strip()
    name = f"{target.variable} ({target.kind})"
    if not value:
        wanted = "command" if target.kind == "command" else "URL"
        raise TargetError(
            f"{target.variable} is not set in the environment of the driver on "
            f"{socket.gethostname()}: set it there to the {wanted}, or remove the target from "
            "tracking.notify.targets"
        )
    if target.kind == "command":
        body = Notification.to_text if target.format == "text" else Notification.to_json
        return CommandTarget(name, _argv_in(value, target.variable), body)
    if not _is_url(value):
        raise TargetError(
            f"{target.variable} has no URL that can be used: expected http:// or https://, a host, "
            "and neither a user name nor spaces. The value is not shown, because it may be a secret"
        )
    body = Notification.to_slack if target.kind == "slack" else Notification.to_json
    return HttpTarget(name, value, body)


def _argv_in(value: str, variable: str) -> list[str]:
    argv = None
    with suppress(ValueError, RecursionError):
        argv = json.loads(value)
    if (
        not isinstance(argv, list)
        or not all(isinstance(word, str) and "\0" not in word for word in argv)
        or not argv
        or not argv[0].startswith("/")
    ):
        raise TargetError(
            f"{variable} has no command: expected a JSON list of texts whose first item is the "
            'absolute path of a program, such as ["/usr/local/bin/page", "--team", "ml"]'
        )
    return argv


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(
            _PRINTABLE.fullmatch(value)
            and parts.scheme in ("http", "https")
            and parts.hostname
            and "@" not in parts.netloc
            and parts.port != 0
        )
    except ValueError:  # for example, the port is not a number
        return False


def _status_problem(code: int) -> DeliveryProblem:
    phrase = http.client.responses.get(code, "unknown status")
    text = f"it answered {code} ({phrase})"
    if 300 <= code < 400:
        return DeliveryProblem(
            f"{text}, but redirects are not followed: use the final address", False
        )
    return DeliveryProblem(text, code >= 500 or code in _TEMPORARY_STATUS)


def _connection_problem(reason: object, seconds: float) -> DeliveryProblem:
    """Describe a failure without the text of the error, which may contain the URL."""
    match reason:
        case TimeoutError():
            return DeliveryProblem(f"it did not answer within {seconds:.3g} s")
        case ssl.SSLCertVerificationError():
            return DeliveryProblem("its TLS certificate is not valid for this host", False)
        case ssl.SSLError():
            return DeliveryProblem("the TLS connection failed")
        case socket.gaierror():
            return DeliveryProblem("the name of its host cannot be resolved")
        case http.client.HTTPException():  # also if it closes the connection without an answer
            return DeliveryProblem("it closed the connection or did not answer with HTTP")
        case OSError(errno=int() as number):
            return DeliveryProblem(f"the connection failed: {os.strerror(number)}")
    return DeliveryProblem("the connection failed")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the group that a process leads, unless the process has ended."""
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


class _TimedReader(io.RawIOBase):
    """Readable end of a socket that raises TimeoutError after a deadline.

    A socket's timeout applies to each read, so a server that sends a byte at a time could extend it
    without limit.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + (connection.gettimeout() or 0.0)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _TimedResponse(http.client.HTTPResponse):
    """Response whose status and headers must arrive within the timeout of the socket."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(_TimedReader(sock), *args, **options)  # type: ignore[arg-type]


class _TimedHttp(http.client.HTTPConnection):
    response_class = _TimedResponse


class _TimedHttps(http.client.HTTPSConnection):
    response_class = _TimedResponse


class _TimedHandler(request.HTTPHandler, request.HTTPSHandler):
    def http_open(self, req: request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TimedHttp, req)

    def https_open(self, req: request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TimedHttps, req)
