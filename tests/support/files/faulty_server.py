"""An HTTP server over a folder that misbehaves on demand.

    with FaultyServer(folder) as server:
        server.fail(Fault.RESET, on={1, 2})                # the next two requests of each file
        server.fail(Fault.STALL, file="shards/a.tar")      # all requests of one file, from now on
        server.fail_randomly(0.3, seed=1)                  # three in ten, of all kinds
        store = open_store(server.url, ...)
        assert server.requests["shards/a.tar"] == 3
        server.heal()

The first rule that holds decides. Whether the n-th request of a file fails depends on nothing
else, so it is the same however the requests of several clients mix.
"""

import enum
import os
import random
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support.quiet_server import QuietHandler, QuietServer


class Fault(enum.Enum):
    """Response that a client gets instead of the file."""

    INTERNAL_ERROR = "status 500"
    UNAVAILABLE = "status 503"
    FORBIDDEN = "status 403"
    NOT_FOUND = "status 404"
    RESET = "half the body, then a connection reset"
    TRUNCATED = "half the body, though the whole length was announced"
    SHORT = "half the body, announced as the whole"
    STALL = "half the body, then nothing for `stall_seconds`, then the rest"
    BIT_FLIP = "one wrong bit in the middle"
    ENDLESS = "the file, then zeros without an end; no length is announced"
    BOMB = "64 MB of zeros as gzip, which the headers call an encoding of the file"


# faults that end by themselves, however many of them a client meets
MODEST = tuple(fault for fault in Fault if fault not in (Fault.ENDLESS, Fault.BOMB))


STATUSES = {
    Fault.INTERNAL_ERROR: 500,
    Fault.UNAVAILABLE: 503,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
}
Rule = Callable[[str], Fault | None]  # the rule's fault for a request of this file, or None


class FaultyServer(QuietServer):
    """Server of the files of `folder`."""

    def __init__(self, folder: Path, stall_seconds: float = 60.0) -> None:
        super().__init__(_Handler)
        self.folder = folder
        self.stall_seconds = stall_seconds
        self.requests: Counter[str] = Counter()  # number of requests by file, including failed ones
        self.faults: Counter[Fault] = Counter()  # number of times that each fault occurred
        self.headers: dict[str, Mapping[str, str]] = {}  # headers of the last request, by file
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def fail(
        self, fault: Fault, file: str | None = None, on: Collection[int] | None = None
    ) -> None:
        """Add a rule for one file, or for all: all requests fail, or those whose number is in `on`.

        The next request of a file has number 1.
        """
        seen: Counter[str] = Counter()

        def rule(name: str) -> Fault | None:
            seen[name] += 1
            hit = file in (None, name) and (on is None or seen[name] in on)
            return fault if hit else None

        self._add(rule)

    def fail_randomly(
        self, probability: float, seed: int, faults: Collection[Fault] = MODEST
    ) -> None:
        """Add a rule: each request fails with this probability, by one of several faults."""
        seen: Counter[str] = Counter()

        def rule(name: str) -> Fault | None:
            seen[name] += 1
            rng = random.Random(f"{seed} {name} {seen[name]}")
            return rng.choice(list(faults)) if rng.random() < probability else None

        self._add(rule)

    def heal(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules.clear()

    def note_request(self, name: str) -> Fault | None:
        """Count a request, and return its fault, if any."""
        with self._lock:
            self.requests[name] += 1
            # evaluate all rules, since each counts the requests
            answers = [rule(name) for rule in self._rules]
            fault = next((answer for answer in answers if answer is not None), None)
            if fault is not None:
                self.faults[fault] += 1
            return fault

    def _add(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)


class _Handler(QuietHandler):
    server: FaultyServer

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path).strip("/")
        fault = self.server.note_request(name)
        self.server.headers[name] = dict(self.headers)
        path = self.server.folder / name
        if fault in STATUSES:
            self.send_error(STATUSES[fault])
        elif not path.is_file():
            self.send_error(404)
        else:
            self._send(path.read_bytes(), fault)

    def _send(self, data: bytes, fault: Fault | None) -> None:
        if fault is Fault.ENDLESS:
            self._send_without_end(data)
            return
        half = len(data) // 2
        if fault is Fault.SHORT:
            data = data[:half]
        elif fault is Fault.BIT_FLIP:
            data = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        self.send_response(200)
        if fault is Fault.BOMB:
            packer = zlib.compressobj(1, wbits=31)
            data = b"".join(packer.compress(bytes(1_000_000)) for _ in range(64)) + packer.flush()
            half = len(data) // 2
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:half])
        if fault is Fault.RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # A socket's `close` waits for other references, and would end the connection without
            # RST.
            os.close(self.connection.detach())
        elif fault is Fault.STALL:
            self.server.closing.wait(self.server.stall_seconds)
        if fault not in (Fault.RESET, Fault.TRUNCATED):
            self.wfile.write(data[half:])

    def _send_without_end(self, data: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)
        while not self.server.closing.is_set():  # the client ended the connection earlier
            self.wfile.write(bytes(1_000_000))
