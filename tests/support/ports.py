"""Free ports for servers that get a port number and start later."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

# ports that the kernel assigns to outgoing connections
OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
AFTER_RAY_WORKERS = 20_000  # the workers of Ray use 10002 to 19999
# ports returned in this process; their servers may not listen yet, or may listen again later
_given: set[int] = set()


def free_port() -> int:
    """Return a free port that no outgoing connection uses before the server listens.

    No two calls in a process return the same port.

    Raises:
        IndexError: this process has used all ports.
    """
    lowest, _ = map(int, OUTGOING_PORTS.read_text().split())
    while True:
        port = secrets.choice([*{*range(AFTER_RAY_WORKERS, lowest)} - _given])
        _given.add(port)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
