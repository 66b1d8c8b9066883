"""An HTTP server that receives notifications, and misbehaves as a test says.

with WebhookServer(500, 200) as server:    # the answer of each request; the last one stays
    ...
    server.wait_for(2)
    server.messages[0]["event"]
"""

import enum
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from support.cluster.processes import HANG_SECONDS
from support.quiet_server import QuietServer

SECRET = "s3cr3t-CANARY-0123456789"  # in the path of the address, as Slack has it


class Misbehaviour(enum.Enum):
    """What a client gets in place of an answer."""

    HANG = "nothing"
    DRIP = "a header that never ends, a byte at a time"
    CLOSE = "a closed connection"
    RESET = "a reset connection"
    GARBAGE = "bytes that are no HTTP"
    CONTINUE = "100 Continue without an end"


Answer = int | Misbehaviour


class WebhookServer:
    """Receives POST requests on a free port of this host, in threads of this process."""

    def __init__(self, *answers: Answer, moved_to: str = "") -> None:
        """answers: by request; moved_to: the Location of answers with 3xx."""
        self.answers = list(answers) or [200]
        self.moved_to = moved_to
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.closing = threading.Event()
        self._changed = threading.Condition()
        handler = type("Handler", (_Handler,), {"hook": self})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/services/{SECRET}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The body of each request."""
        with self._changed:
            return [json.loads(body) for body in self.bodies]

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]

    def wait_for(self, requests: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.bodies) >= requests, HANG_SECONDS)

    def note(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        """Keep a request, and return its answer."""
        with self._changed:
            answer = self.answers[min(len(self.bodies), len(self.answers) - 1)]
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self.bodies.append(body)
            self._changed.notify_all()
            return answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hook: WebhookServer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        answer = self.hook.note(self, self.rfile.read(length))
        if isinstance(answer, int):
            self.send_response(answer)
            if 300 <= answer < 400:
                self.send_header("Location", self.hook.moved_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.close_connection = True
        closing = self.hook.closing
        match answer:
            case Misbehaviour.HANG:
                closing.wait()
            case Misbehaviour.DRIP:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
                while not closing.wait(0.02):
                    self.wfile.write(b"x")
            case Misbehaviour.CONTINUE:
                while not closing.wait(0.02):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            case Misbehaviour.RESET:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                socket.close(self.connection.detach())
            case Misbehaviour.GARBAGE:
                self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    def do_GET(self) -> None:
        """Nothing may ask so: a client that follows a redirect does."""
        self.hook.note(self, b"{}")
        self.send_error(405)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
