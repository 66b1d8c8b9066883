"""Ranks of a node that are connected to its agent: their reports, deaths and heartbeats.

    ranks ──socket──▶ a thread: frames and deaths ──▶ `listen`: the answer to the driver
    driver ─heartbeat─▶ `relay_heartbeat` ──socket──▶ ranks

The socket is in a new folder of mode 0700 in the temporary folder. The agent holds a lock on the
folder, so that the next agent on the node can remove the folder of a killed one.

A *pidfd* is a descriptor of a process that becomes readable when the process ends.
"""

import os
import pickle
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cluster.health.watchdog import HEARTBEAT_SECONDS
from cluster.ranks.agent_link import FRAME, MAX_FRAME_BYTES, ORDER, AgentAddress, peer_of
from cluster.ranks.reports import Report
from foundation.folder_lock import new_locked_folder, remove_unlocked
from foundation.untrusted_text import logger_of

PREFIX = "transloom-agent-"
# Longest path of the parent folder, in bytes. The path of a Unix socket may have at most 107 bytes.
LONGEST_PARENT = 70
READ_BYTES = 2**18

LISTEN_SECONDS = 1.5
# Shortest time between two answers because of reports, so that fast steps cost the driver no more
# than the ticks of its loop. Deaths do not wait.
REPORT_SECONDS = 0.1
# Bounds of the time between two heartbeats of which the second is passed on. After the agent or
# the network was stopped, heartbeats of a supervisor that may be dead arrive together. So a
# heartbeat that is passed on is at most `LONGEST_GAP_SECONDS` old, which is less than the
# difference between the term of the supervisor's lease and the time-out of a rank's watchdog.
SHORTEST_GAP_SECONDS = HEARTBEAT_SECONDS / 4
LONGEST_GAP_SECONDS = HEARTBEAT_SECONDS * 4

logger = logger_of(__name__)


@dataclass(frozen=True)
class ReportFrame:
    """Pickled reports of a rank.

    Attributes:
        first: the number of the first report.
        end: the number of the report after the last one.
        is_urgent: whether the driver should receive them at once.
        payload: the list of reports with their times, pickled.
    """

    first: int
    end: int
    is_urgent: bool
    payload: bytes

    def reports(self) -> list[tuple[float, Report]]:
        """Unpickle the reports with their times, as Ray does with the answers of a rank's actor.

        Only the driver may call this, for a process that it has started. The agent has received the
        frame from this process, according to the kernel.
        """
        reports: list[tuple[float, Report]] = pickle.loads(self.payload)  # noqa: S301
        return reports


@dataclass(frozen=True)
class NodeReports:
    """Answer of an agent to `listen`, with ranks by their process ids.

    Attributes:
        address: where ranks of this node can connect, or None.
        now: the node's monotonic clock in seconds, to which the times of reports belong.
        silent_seconds: the time since the last heartbeat of each connected rank.
        frames: reports that the driver has not received, by rank and in order.
        dead: ranks whose processes have ended.
    """

    address: AgentAddress | None
    now: float
    silent_seconds: dict[int, float]
    frames: dict[int, list[ReportFrame]]
    dead: list[int]


@dataclass(eq=False)
class _Link:
    """A rank's connection, and what it has sent."""

    connection: socket.socket
    heard_at: float
    buffer: bytearray = field(default_factory=bytearray)
    frames: list[ReportFrame] = field(default_factory=list)
    received: int = 0  # number of reports that the driver has received
    is_open: bool = True
    is_dead: bool = False


class LinkedRanks:
    """Server of an agent for the ranks of its node.

    Attributes:
        address: where ranks can connect; None if no socket can be created, or after `close`.
    """

    def __init__(self) -> None:
        self.address: AgentAddress | None = None
        self._links: dict[int, _Link] = {}  # by process id
        self._changed = threading.Condition()
        self._has_news = True  # a rank has connected or died since the last answer
        self._answered_at = 0.0
        self._heartbeat_at = 0.0
        self._selector = selectors.DefaultSelector()
        try:
            self._open()
        except OSError as error:
            logger.warning("No rank can report to the agent of this node: %s", error)

    def listen(self, received: Mapping[int, int]) -> NodeReports:
        """Return the reports of ranks as soon as there is news, or after `LISTEN_SECONDS`.

        A death and a new connection are news at once, and an urgent report is after
        `REPORT_SECONDS`. Other reports wait for the next answer.

        Args:
            received: for each rank that the driver knows, by its process id, the number of reports
                that the driver has received.
        """
        until = time.monotonic() + LISTEN_SECONDS
        with self._changed:
            self._acknowledge(received)
            while (seconds := self._seconds_to_wait(received, until)) > 0:
                self._changed.wait(seconds)
            self._has_news = False
            self._answered_at = now = time.monotonic()
            links = self._links.items()
            return NodeReports(
                self.address,
                now,
                {pid: now - link.heard_at for pid, link in links if link.is_open},
                {pid: list(link.frames) for pid, link in links if link.frames},
                [pid for pid, link in links if link.is_dead],
            )

    def relay_heartbeat(self) -> None:
        """Pass a heartbeat of the supervisor on to all ranks, unless it may be too old."""
        now = time.monotonic()
        gap, self._heartbeat_at = now - self._heartbeat_at, now
        if not SHORTEST_GAP_SECONDS <= gap <= LONGEST_GAP_SECONDS:
            return
        with self._changed:
            for link in self._links.values():
                with suppress(OSError):  # it is stopped, or has died
                    link.connection.send(ORDER.pack(link.received))

    def close(self) -> None:
        """Remove the folder of the socket; connected ranks stay connected."""
        if self.address:
            shutil.rmtree(self.address.socket.parent, ignore_errors=True)
            self.address = None

    def _open(self) -> None:
        parent = Path(tempfile.gettempdir())
        if len(os.fsencode(parent)) > LONGEST_PARENT:
            parent = Path("/tmp")
        remove_unlocked(parent.glob(f"{PREFIX}*"))
        folder, self._lock = new_locked_folder(PREFIX, parent)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(folder / "s"))
        self._server.listen(1024)
        self._selector.register(self._server, selectors.EVENT_READ, self._accept)
        self.address = AgentAddress(folder / "s", os.getpid())
        threading.Thread(target=self._serve, name="linked ranks", daemon=True).start()

    def _acknowledge(self, received: Mapping[int, int]) -> None:
        """Drop what the driver has received, and dead ranks that it does not ask for any more."""
        for pid, link in list(self._links.items()):
            if pid in received:
                link.received = received[pid]
                link.frames = [frame for frame in link.frames if frame.end > link.received]
            elif link.is_dead:
                del self._links[pid]

    def _seconds_to_wait(self, received: Mapping[int, int], until: float) -> float:
        links = [self._links[pid] for pid in received if pid in self._links]
        if self._has_news or any(link.is_dead for link in links):
            return 0.0
        if any(frame.is_urgent for link in links for frame in link.frames):
            until = min(until, self._answered_at + REPORT_SECONDS)
        return until - time.monotonic()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                try:
                    key.data()
                except Exception:  # one rank must not end the thread that serves the others
                    logger.exception("A connection of a rank was ignored")
                    time.sleep(1.0)  # it may come again at once, such as too many open files

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        process_id, user_id = peer_of(connection)
        if user_id != os.geteuid():
            connection.close()
            return
        connection.setblocking(False)
        link = _Link(connection, time.monotonic())
        with self._changed:
            if before := self._links.get(process_id):
                self._disconnect(before)
            self._links[process_id] = link
        self._announce()
        self._selector.register(connection, selectors.EVENT_READ, partial(self._read, link))
        try:
            process = os.pidfd_open(process_id)
        except OSError:  # it has ended, or the kernel is too old: Ray reports the death
            return
        self._selector.register(process, selectors.EVENT_READ, partial(self._end, link, process))

    def _read(self, link: _Link) -> None:
        data = b""
        with suppress(OSError):  # the rank has died, or has nothing more to read after its end
            data = link.connection.recv(READ_BYTES)
        link.buffer += data
        link.heard_at = time.monotonic()
        frames = _take_frames(link.buffer) if data else None
        with self._changed:
            if frames is None:
                self._disconnect(link)
                return
            link.frames += frames
            if any(frame.is_urgent for frame in frames):
                self._changed.notify_all()

    def _end(self, link: _Link, process: int) -> None:
        """Record that the process of a rank has ended."""
        self._selector.unregister(process)
        os.close(process)
        with self._changed:
            while link.is_open:  # its last reports
                self._read(link)
            link.is_dead = True
        self._announce()

    def _disconnect(self, link: _Link) -> None:
        """Close a connection; usually the process has ended, which its pidfd shows a bit later."""
        if link.is_open:
            link.is_open = False
            self._selector.unregister(link.connection)
            link.connection.close()

    def _announce(self) -> None:
        with self._changed:
            self._has_news = True
            self._changed.notify_all()


def _take_frames(buffer: bytearray) -> list[ReportFrame] | None:
    """Remove complete frames from a buffer and return them; None if a header is invalid."""
    frames = []
    while len(buffer) >= FRAME.size:
        size, first, count, is_urgent = FRAME.unpack_from(buffer)
        if size > MAX_FRAME_BYTES:
            return None
        end = FRAME.size + size
        if len(buffer) < end:
            break
        if count:
            payload = bytes(buffer[FRAME.size : end])
            frames.append(ReportFrame(first, first + count, is_urgent, payload))
        del buffer[:end]
    return frames
