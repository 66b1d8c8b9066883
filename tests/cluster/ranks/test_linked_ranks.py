"""Ranks that are connected to the agent of their node: real processes and sockets, without Ray."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support.cluster.processes import wait_until

from cluster.health.hang_detector import Position
from cluster.ranks import linked_ranks
from cluster.ranks.agent_link import FRAME, MAX_FRAME_BYTES, AgentAddress, AgentLink
from cluster.ranks.linked_ranks import PREFIX, LinkedRanks
from cluster.ranks.reports import Mailbox, Notice

ROOT = Path(__file__).resolve().parents[3]
RANK = """
import sys
from pathlib import Path
from cluster.ranks.agent_link import AgentAddress, AgentLink
from cluster.ranks.reports import Mailbox
mailbox = Mailbox()
link = AgentLink(mailbox, lambda: print("heartbeat", flush=True))
for line in sys.stdin:
    word, *rest = line.split()
    if word == "connect":
        print(link.connect(AgentAddress(Path(rest[0]), int(rest[1]))), flush=True)
    elif word == "notice":
        mailbox.notice(rest[0])
    elif word == "step":
        mailbox.progress("step", int(rest[0]))
    elif word == "kept":
        print(len(mailbox.reports_since(0).reports), flush=True)
"""
AGENT = """
import sys
from cluster.ranks.linked_ranks import LinkedRanks
ranks = LinkedRanks()
print(ranks.address.socket, flush=True)
sys.stdin.read()
"""


class Program:
    """A process that is told what to do, line by line."""

    def __init__(self, text: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.id = self._process.pid

    def tell(self, *words: object) -> None:
        print(*words, file=self._process.stdin, flush=True)

    def hear(self) -> str:
        return self._process.stdout.readline().strip()

    def connect(self, address: AgentAddress) -> str:
        self.tell("connect", *address)
        return self.hear()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(monkeypatch, tmp_path_factory):
    """Starts programs, whose temporary folder is private and has a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        programs = []

        def make(text: str) -> Program:
            programs.append(Program(text))
            return programs[-1]

        yield make
        for program in programs:
            program.kill()


@pytest.fixture
def rank(start):
    return start(RANK)


def notices_of(answer, process_id):
    frames = answer.frames.get(process_id, [])
    return [report for frame in frames for _, report in frame.reports()]


def listen_until(agent, received, is_enough):
    """Listen as the driver does, but acknowledge nothing; return the last answer."""
    answers = []

    def enough():
        answers.append(agent.listen(received))
        return is_enough(answers[-1])

    wait_until(enough)
    return answers[-1]


def test_reports_of_a_rank_come_until_they_are_acknowledged(rank):
    agent = LinkedRanks()
    assert rank.connect(agent.address) == "True"
    rank.tell("step", 3)
    rank.tell("notice", "one")
    answer = listen_until(agent, {rank.id: 0}, lambda a: len(notices_of(a, rank.id)) == 2)
    assert notices_of(answer, rank.id) == [Position("step", 3), Notice("one")]
    assert answer.silent_seconds[rank.id] < 60
    assert (answer.dead, answer.address) == ([], agent.address)
    again = agent.listen({rank.id: 0})
    assert notices_of(again, rank.id) == [Position("step", 3), Notice("one")]
    assert notices_of(agent.listen({rank.id: 2}), rank.id) == []


def test_news_are_answered_at_once_and_silence_after_a_while(rank, monkeypatch):
    monkeypatch.setattr(linked_ranks, "LISTEN_SECONDS", 60.0)
    agent = LinkedRanks()
    rank.connect(agent.address)
    listen_until(agent, {rank.id: 0}, lambda answer: rank.id in answer.silent_seconds)
    started = time.monotonic()
    threading.Timer(0.2, lambda: rank.tell("notice", "one")).start()
    assert notices_of(agent.listen({rank.id: 0}), rank.id) == [Notice("one")]
    rank.tell("step", 3)  # is not urgent
    threading.Timer(1.5, rank.kill).start()
    answer = agent.listen({rank.id: 1})
    assert answer.dead == [rank.id]
    assert notices_of(answer, rank.id) == [Position("step", 3)]
    assert time.monotonic() - started < 60
    monkeypatch.setattr(linked_ranks, "LISTEN_SECONDS", 0.1)
    assert agent.listen({}).dead == []  # the driver does not ask for it any more
    assert rank.id not in agent._links


def test_a_heartbeat_is_passed_on_unless_it_may_be_old(rank, monkeypatch):
    agent = LinkedRanks()
    rank.connect(agent.address)
    listen_until(agent, {rank.id: 0}, lambda answer: rank.id in answer.silent_seconds)
    sent = []

    def beat(gap):
        agent._heartbeat_at = time.monotonic() - gap
        agent.relay_heartbeat()
        sent.append(gap)

    for gap in (0.0, 2.0, 9.0, 2.0):  # a burst, as usual, after a pause, as usual
        beat(gap)
    assert [rank.hear(), rank.hear()] == ["heartbeat"] * 2
    rank.tell("kept")
    assert rank.hear() == "0"


def test_a_heartbeat_brings_what_the_driver_has_received(rank):
    agent = LinkedRanks()
    rank.connect(agent.address)
    for number in range(3):
        rank.tell("notice", number)
    listen_until(agent, {rank.id: 0}, lambda answer: len(notices_of(answer, rank.id)) == 3)
    agent.listen({rank.id: 2})
    agent._heartbeat_at = time.monotonic() - 2.0
    agent.relay_heartbeat()
    assert rank.hear() == "heartbeat"
    rank.tell("kept")
    assert rank.hear() == "1"


def test_the_agent_after_a_killed_one_gets_all_that_was_not_received(start, rank):
    first = start(AGENT)
    address = AgentAddress(Path(first.hear()), first.id)
    assert stat.S_IMODE(address.socket.parent.stat().st_mode) == 0o700
    assert rank.connect(address) == "True"
    rank.tell("notice", "one")
    first.kill()
    rank.tell("notice", "two")
    assert rank.connect(address) == "False"  # its socket is stale
    agent = LinkedRanks()
    assert not address.socket.parent.exists()
    assert rank.connect(agent.address) == "True"
    answer = listen_until(agent, {rank.id: 0}, lambda a: len(notices_of(a, rank.id)) == 2)
    assert notices_of(answer, rank.id) == [Notice("one"), Notice("two")]
    agent.close()
    assert not list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def test_a_socket_of_another_process_is_not_used(start, rank):
    agent = start(AGENT)
    path = Path(agent.hear())
    assert rank.connect(AgentAddress(path, agent.id + 1)) == "False"
    assert rank.connect(AgentAddress(path.with_name("none"), agent.id)) == "False"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        assert rank.connect(AgentAddress(path, agent.id)) == "False"
        assert rank.connect(AgentAddress(path, os.getpid())) == "True"


@pytest.mark.parametrize(
    "damaged", [FRAME.pack(MAX_FRAME_BYTES + 1, 0, 1, True), b""], ids=["too large", "closed"]
)
def test_a_damaged_connection_ends_alone(rank, damaged):
    agent = LinkedRanks()
    rank.connect(agent.address)
    with socket.socket(socket.AF_UNIX) as bad:
        bad.connect(str(agent.address.socket))
        listen_until(agent, {}, lambda answer: len(answer.silent_seconds) == 2)
        bad.sendall(damaged)
        if not damaged:
            bad.shutdown(socket.SHUT_RDWR)
        answer = listen_until(agent, {}, lambda answer: len(answer.silent_seconds) == 1)
    assert list(answer.silent_seconds) == [rank.id]
    rank.tell("notice", "one")
    listen_until(agent, {rank.id: 0}, lambda answer: notices_of(answer, rank.id))


def test_a_stopped_agent_does_not_stop_a_rank(start):
    """The socket's buffer fills, and the mailbox keeps all reports for direct calls."""
    agent, beats = start(AGENT), []
    address = AgentAddress(Path(agent.hear()), agent.id)
    os.kill(agent.id, signal.SIGSTOP)
    mailbox = Mailbox()
    assert AgentLink(mailbox, lambda: beats.append("now")).connect(address)
    text = "x" * 100_000
    for _ in range(50):
        mailbox.notice(text)
    assert len(mailbox.reports_since(0).reports) == 50
    assert beats == []


def test_without_a_folder_nothing_can_connect(monkeypatch, caplog):
    monkeypatch.setattr(linked_ranks, "LISTEN_SECONDS", 0.1)
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    agent = LinkedRanks()
    assert agent.listen({7: 0}).address is None
    assert "No rank can report to the agent of this node" in caplog.text
    agent.relay_heartbeat()
    agent.close()
