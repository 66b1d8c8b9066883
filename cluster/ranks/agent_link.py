"""Connection of a rank to the agent of its node, over a Unix socket.

    rank ──▶ agent   frames: a `FRAME` header and pickled reports; at least one every
                     `RANK_HEARTBEAT_SECONDS`, without reports if need be, as a heartbeat
    agent ──▶ rank   an `ORDER`: the number of reports received, and a heartbeat of the supervisor

The agent does not unpickle reports: it passes them to the driver, in the answers to its requests.
Both ends ask the kernel who the other one is. A rank only uses the socket of the process that the
driver names, and an agent only accepts processes of the same user. Without a connection, a rank
works as before, because its mailbox also answers direct calls of the driver.
"""

import os
import pickle
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cluster.ranks.reports import Mailbox

# Header of a frame: bytes of the payload, number of the first report, number of reports, urgency.
FRAME = struct.Struct("<IQI?")
# Number of reports that the supervisor has received.
ORDER = struct.Struct("<Q")
MAX_FRAME_BYTES = 16 * 2**20
RANK_HEARTBEAT_SECONDS = 1.0
CONNECT_SECONDS = 2.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


class AgentAddress(NamedTuple):
    """Address of an agent for the ranks of its node."""

    socket: Path
    process_id: int


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the ids of the process and the user at the other end, according to the kernel."""
    text = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process_id, user_id, _ = _CREDENTIALS.unpack(text)
    return process_id, user_id


class AgentLink:
    """Sender of a rank's reports to the agent of its node, in a separate thread."""

    def __init__(self, mailbox: Mailbox, heartbeat: Callable[[], None]) -> None:
        """Create a link without a connection.

        Args:
            heartbeat: called after each heartbeat of the supervisor.
        """
        self._mailbox = mailbox
        self._heartbeat = heartbeat
        self._connection: socket.socket | None = None
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        mailbox.on_urgent = lambda: os.eventfd_write(self._wakes, 1)

    def connect(self, address: AgentAddress) -> bool:
        """Replace the connection by one to this address; return False if there is no such agent."""
        if self._connection:
            with suppress(OSError):  # its thread has closed it
                self._connection.shutdown(socket.SHUT_RDWR)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(str(address.socket))
            if peer_of(connection) != (address.process_id, os.geteuid()):
                raise ConnectionRefusedError(f"{address.socket} belongs to another process")
        except OSError:
            connection.close()
            return False
        connection.settimeout(None)
        self._connection = connection
        threading.Thread(target=self._work, args=(connection,), daemon=True).start()
        return True

    def _work(self, connection: socket.socket) -> None:
        """Send reports and receive orders until the connection ends.

        Sending blocks while the agent is stopped. Training goes on meanwhile, and the driver polls
        the mailbox itself.
        """
        sent = 0
        with connection, suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._wakes, selectors.EVENT_READ)
            while True:
                sent = self._send(connection, sent)
                for key, _ in selector.select(RANK_HEARTBEAT_SECONDS):
                    if key.fd == self._wakes:
                        with suppress(BlockingIOError):  # a former connection's thread was first
                            os.eventfd_read(self._wakes)
                    else:
                        self._receive(connection)

    def _send(self, connection: socket.socket, sent: int) -> int:
        """Send the reports from number `sent` on; return the number of the next one."""
        batch = self._mailbox.reports_since(sent)
        payload = pickle.dumps(batch.reports) if batch.reports else b""
        if len(payload) > MAX_FRAME_BYTES:
            raise OSError(f"the reports have {len(payload):,} bytes")  # the driver polls them
        header = FRAME.pack(len(payload), batch.first, len(batch.reports), batch.is_urgent)
        connection.sendall(header + payload)
        return batch.end

    def _receive(self, connection: socket.socket) -> None:
        order = connection.recv(ORDER.size, socket.MSG_WAITALL)
        if len(order) < ORDER.size:
            raise ConnectionResetError("the agent has closed the connection")
        self._mailbox.acknowledge(*ORDER.unpack(order))
        self._heartbeat()
