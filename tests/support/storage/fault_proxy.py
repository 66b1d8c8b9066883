"""An HTTP proxy before an object store of this host, which makes requests fail on demand.

    with FaultProxy(s3_server.url) as proxy:
        proxy.fail(Answer(503), "PUT", "/lease$", on={1, 2})   # the next two of these requests
        proxy.fail(LostAnswer(), kind="PUT_OVER")              # all of them, from now on
        proxy.fail(Delay(0.2), probability=0.3, seed=1)        # three in ten, of all kinds
        run_in_a_process(..., env=os.environ | proxy.environment)
        assert proxy.requests["PUT_NEW"] == 1
        proxy.heal()

    hold = Hold()                       # reorders requests without waiting for some time
    proxy.fail(hold, "PUT", on={1})
    ...                                 # a thread or process writes
    hold.arrived.wait(60)
    ...                                 # meanwhile another thread or process writes
    hold.release.set()

The first matching rule with a fault decides. Whether the n-th request of a rule fails is
deterministic. Otherwise, the proxy is transparent: it forwards the Host header, because S3's
signatures cover it.
"""

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

from support.quiet_server import QuietHandler, QuietServer
from support.storage.s3_server import environment_of

CODES = {
    401: "Unauthorized",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Fault:
    """Fault that replaces the plain forwarding of a request."""


@dataclass(frozen=True)
class Refusal(Fault):
    """Fault in which the request is not forwarded."""


@dataclass(frozen=True)
class Answer(Refusal):
    """Error response of S3; `text` follows S3's code and message. The request is not forwarded."""

    status: int
    code: str = ""  # code of S3, if it is not the usual one for the status
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Delay(Fault):
    """Forward the request after some seconds, when later requests may have overtaken it."""

    seconds: float


@dataclass(frozen=True)
class Hold(Fault):
    """Forward the request (or if `after`, its response) when a test releases it."""

    after: bool = False
    arrived: threading.Event = field(default_factory=threading.Event, hash=False)
    release: threading.Event = field(default_factory=threading.Event, hash=False)


@dataclass(frozen=True)
class Slow(Fault):
    """Send the response's body in parts of `size` bytes, each after some seconds."""

    seconds: float
    size: int = 1


@dataclass(frozen=True)
class Stall(Refusal):
    """Send no response for some seconds, then close the connection; forward nothing."""

    seconds: float = 60.0


@dataclass(frozen=True)
class StallBody(Fault):
    """Send half of the response's body, then nothing for some seconds, then the rest."""

    seconds: float = 60.0


@dataclass(frozen=True)
class StallUpload(Refusal):
    """Read none of the request's body for some seconds, then close the connection."""

    seconds: float = 60.0


@dataclass(frozen=True)
class CutRequest(Refusal):
    """Reset the connection in the middle of the request's body; forward nothing."""


@dataclass(frozen=True)
class CutAnswer(Fault):
    """Reset the connection in the middle of the response's body."""


@dataclass(frozen=True)
class LostAnswer(Fault):
    """Forward the request, then reset the connection before the response."""


@dataclass(frozen=True)
class AppliedThen(Fault):
    """Forward the request, but respond with an error."""

    status: int = 500


@dataclass(frozen=True)
class Skew(Fault):
    """Shift the response's Date by this number of seconds; negative values are in the past."""

    seconds: float


@dataclass(frozen=True)
class Rewrite(Fault):
    """Change the response's body and its length."""

    change: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Request:
    """Record of a request, for checks by a test.

    Attributes:
        kind: GET, HEAD, LIST, PUT, PUT_NEW, PUT_OVER, DELETE or another method.
        path: the decoded path with its query.
        status: status of the store's response; None if the request was not forwarded.
    """

    kind: str
    method: str
    path: str
    fault: Fault | None
    status: int | None


# the rule's fault for a request's method, kind and path, or None
Rule = Callable[[str, str, str], Fault | None]


class FaultProxy(QuietServer):
    """Proxy that forwards to `target`.

    Attributes:
        requests: number of requests by kind, including failed ones.
        log: all requests, in the order in which the store answered or the proxy failed them. A
            client that has its answer finds its request there.
        environment: variables for processes that use the store through the proxy.
    """

    def __init__(self, target: str) -> None:
        super().__init__(_Handler)
        self.target = urlsplit(target).netloc
        self.requests: Counter[str] = Counter()
        self.log: list[Request] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self.environment = environment_of(self.url)

    def fail(
        self,
        fault: Fault,
        method: str = "",
        path: str = "",
        *,
        kind: str | None = None,
        on: Collection[int] | None = None,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Add a rule for requests whose method and path (patterns) and kind match.

        Matching requests are numbered from 1. Those with a number in `on` fail or, if it is None,
        each with the given probability.
        """
        seen = 0

        def rule(its_method: str, its_kind: str, its_path: str) -> Fault | None:
            nonlocal seen
            if not re.search(method, its_method) or not re.search(path, its_path):
                return None
            if kind not in (None, its_kind):
                return None
            seen += 1
            hit = on is None or seen in on
            return fault if hit and random.Random(f"{seed} {seen}").random() < probability else None

        with self._lock:
            self._rules.append(rule)

    def heal(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules.clear()

    def decide(self, method: str, kind: str, path: str) -> Fault | None:
        with self._lock:
            self.requests[kind] += 1
            # evaluate all rules, because each counts the requests
            answers = [rule(method, kind, path) for rule in self._rules]
            return next((answer for answer in answers if answer is not None), None)

    def note(self, request: Request) -> None:
        with self._lock:
            self.log.append(request)


@dataclass
class _Response:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class _Handler(QuietHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()
            return
        self.close_connection = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        path = unquote(self.path)
        kind = self._kind()
        fault = self.server.decide(self.command, kind, path)
        length = int(self.headers.get("Content-Length") or 0)

        def note(status: int | None) -> None:
            self.server.note(Request(kind, self.command, path, fault, status))

        if isinstance(fault, Refusal):
            note(None)
            self._refuse(fault, length)
        else:
            self._forward_and_answer(self.rfile.read(length), fault, note)

    def _refuse(self, fault: Refusal, length: int) -> None:
        match fault:
            case CutRequest():
                self.rfile.read(length // 2)
                self._reset()
            case StallUpload(seconds):
                self.server.closing.wait(seconds)
                self._reset()
            case Answer():
                self.rfile.read(length)
                self._send(self._error(fault))
            case Stall(seconds):
                self.rfile.read(length)
                self.server.closing.wait(seconds)
                self._reset()

    def _forward_and_answer(
        self, body: bytes, fault: Fault | None, note: Callable[[int | None], None]
    ) -> None:
        match fault:
            case Delay(seconds):
                self.server.closing.wait(seconds)
            case Hold(after=False):
                self._hold(fault)
        try:
            response = self._forward(body)
        except OSError:
            note(None)
            raise
        note(response.status)
        half = len(response.body) // 2
        match fault:
            case LostAnswer():
                self._reset()
            case AppliedThen(status):
                self._send(self._error(Answer(status)))
            case Hold(after=True):
                self._hold(fault)
                self._send(response)
            case Slow(seconds, size):
                self._send_head(response)
                for start in range(0, len(response.body), size):
                    self.server.closing.wait(seconds)
                    self.wfile.write(response.body[start : start + size])
            case StallBody(seconds):
                self._send_head(response)
                self.wfile.write(response.body[:half])
                self.server.closing.wait(seconds)
                self.wfile.write(response.body[half:])
            case CutAnswer():
                self._send_head(response)
                self.wfile.write(response.body[:half])
                self._reset()
            case Skew(seconds):
                date = formatdate(time.time() + seconds, usegmt=True)
                others = [item for item in response.headers if item[0].lower() != "date"]
                response.headers = [*others, ("Date", date)]
                self._send(response)
            case Rewrite(change):
                response.body = change(response.body)
                self._send(response)
            case _:
                self._send(response)

    def _kind(self) -> str:
        query = urlsplit(self.path).query
        if self.command == "GET" and re.search(r"\b(list-type|prefix|delimiter)=", query):
            return "LIST"
        if self.command == "POST" and query.startswith("delete"):
            return "DELETE"
        if self.command == "PUT" and "If-None-Match" in self.headers:
            return "PUT_NEW"
        if self.command == "PUT" and "If-Match" in self.headers:
            return "PUT_OVER"
        return str(self.command)

    def _hold(self, hold: Hold) -> None:
        hold.arrived.set()
        while not (hold.release.wait(0.02) or self.server.closing.is_set()):
            continue

    def _forward(self, body: bytes) -> _Response:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            if "Content-Length" in self.headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = [item for item in answer.getheaders() if item[0].lower() not in HOP_BY_HOP]
            if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
                headers.append(("Content-Length", length))
            return _Response(answer.status, answer.reason, headers, answer.read())
        finally:
            connection.close()

    def _error(self, answer: Answer) -> _Response:
        code = answer.code or CODES.get(answer.status, "Error")
        body = f"<Error><Code>{code}</Code><Message>by the proxy</Message>{answer.text}</Error>"
        reason = http.client.responses.get(answer.status, "")
        return _Response(answer.status, reason, [*answer.headers], body.encode())

    def _send(self, response: _Response) -> None:
        self._send_head(response)
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _send_head(self, response: _Response) -> None:
        self.send_response_only(response.status, response.reason)
        for name, value in response.headers:
            self.send_header(name, value)
        if self.command != "HEAD" and response.status not in (204, 304):
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()

    def _reset(self) -> None:
        """Reset the connection, which differs from a regular end of a body."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # A socket's `close` waits for other references, and would end the connection without RST.
        socket.close(self.connection.detach())
