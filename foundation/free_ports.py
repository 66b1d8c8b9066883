"""Free ports for servers that get a port number and start later."""

import secrets
import socket
from contextlib import suppress

# Above the ports of Ray's workers, and below those that Linux gives to outgoing connections. No
# port is returned twice, because its server may not listen yet, or may listen again later.
_untried = secrets.SystemRandom().sample(range(20_000, 32_768), k=12_768)


def free_port() -> int:
    """Return a port that is free, and that no outgoing connection uses before the server listens.

    Raises:
        IndexError: this process has used all ports.
    """
    while True:
        port = _untried.pop()
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
