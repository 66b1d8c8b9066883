"""Ports for servers that take a number and are started later."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")  # which the kernel gives to them
AFTER_RAY_WORKERS = 20_000  # theirs are 10002 to 19999
_given: set[int] = set()  # by this process: the server of one may not listen yet, nor listen again


def free_port() -> int:
    """Return a free port that no outgoing connection takes before its server does.

    No two calls of a process return the same one.

    Raises:
        IndexError: this process has got all of them.
    """
    lowest, _ = map(int, OUTGOING_PORTS.read_text().split())
    while True:
        port = secrets.choice([*{*range(AFTER_RAY_WORKERS, lowest)} - _given])
        _given.add(port)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
