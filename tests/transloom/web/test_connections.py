"""Limits on connections without a token: their number, duration and log lines."""

import asyncio
import logging
import os
import resource
import socket
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from aiohttp import web
from support.connections import HALF_REQUEST, answer_to, connect, half_requests, received
from support.dashboard.running import RunningDashboard

from transloom.observe.dashboard.api_models import CurvesChanged
from transloom.web import connections
from transloom.web.connections import HEADERS, MAX_WAITING, Refusals, http_server

MALFORMED = {
    "a control character": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n",
    "a long address": b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "an address of no host": b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "no chunk": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}
WHOLE_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
REFUSED = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
BROKEN_BODIES = {
    "no chunk": (REFUSED + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n"),
    "no gzip": (REFUSED + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", b"hello"),
    "too short": (REFUSED + b"Content-Length: 50\r\n\r\n", b"hello"),
}


@pytest.fixture
def dashboard(tmp_path):
    with RunningDashboard(tmp_path) as running:
        yield running


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_request_gets_status_400_with_security_headers(dashboard, kind):
    answer = answer_to(dashboard.port, MALFORMED[kind])
    status, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert status.split()[1] == "400"
    found = dict(line.split(": ", 1) for line in lines)
    assert found.items() >= HEADERS.items()
    assert not any(word in answer for word in (b"aiohttp", b"Python", b"Traceback"))


def test_malformed_requests_are_logged_once_and_then_counted(tmp_path, caplog):
    with RunningDashboard(tmp_path) as dashboard:
        for _ in range(5):
            for malformed in MALFORMED.values():
                answer_to(dashboard.port, malformed)
            for parts in BROKEN_BODIES.values():
                assert b" 403 " in answer_to(dashboard.port, *parts).partition(b"\r\n")[0]
        with half_requests(dashboard.port, MAX_WAITING + 20) as held:
            assert received(held[19]) == b""
        assert len(caplog.records) == 1
    first, last = (record.getMessage() for record in caplog.records)
    assert first.endswith("malformed or incomplete requests: 1")
    assert "connections closed for newer ones" in last
    assert last.endswith(": 20")
    assert len(first + last) < 500


def test_incomplete_requests_do_not_block_the_owner(dashboard):
    with dashboard.follow() as events, half_requests(dashboard.port, 2 * MAX_WAITING) as held:
        for oldest in held[:MAX_WAITING]:
            assert received(oldest) == b""
        assert dashboard.get("/api/runs").status == 200
        entered = dashboard.request("GET", f"/?token={dashboard.doors.token}", cookie=None)
        assert entered.status == 303
        for newest in held[MAX_WAITING + 2 :]:  # not closed for the requests above
            newest.sendall(b"x\r\n\r\n")
            assert b" 401 " in received(newest)
        dashboard.publish("curves", CurvesChanged(id="one"))
        assert events.next("curves") == ("curves", {"id": "one"})


@pytest.mark.parametrize("sent", [b"", HALF_REQUEST])
def test_a_connection_is_closed_if_headers_do_not_arrive_in_time(tmp_path, sent):
    with (
        RunningDashboard(tmp_path, headers_seconds=0.1) as dashboard,
        connect(dashboard.port) as connection,
    ):
        connection.sendall(sent)
        assert received(connection) == b""


def test_a_client_that_does_not_read_is_disconnected_for_newer_clients():
    whole = 20_000_000  # more than the kernel's buffers of both ends
    kept = []

    async def send(request):
        kept.append(request.protocol)
        return web.Response(body=bytes(whole))

    async def read(client):
        loop, found = asyncio.get_running_loop(), 0
        with suppress(ConnectionError):
            while more := await loop.sock_recv(client, 1_000_000):
                found += len(more)
        return found

    async def check():
        loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/", send)
        listening = socket.create_server(("127.0.0.1", 0))
        place = listening.getsockname()
        with unconnected(MAX_WAITING + 1) as (oldest, *newer):
            async with http_server(app, listening, shutdown_seconds=1):
                for client in (oldest, *newer):
                    client.setblocking(False)
                await loop.sock_connect(oldest, place)
                await loop.sock_sendall(oldest, WHOLE_REQUEST)
                while not (kept and kept[0].writing_paused):
                    await asyncio.sleep(0)
                kept[0].force_close()  # as aiohttp closes idle connections
                for client in newer:
                    await loop.sock_connect(client, place)
                    await loop.sock_sendall(client, WHOLE_REQUEST.replace(b"/", b"/none", 1))
                    assert b" 404 " in await loop.sock_recv(client, 10_000)
                assert await read(oldest) < whole

    asyncio.run(check())


@contextmanager
def no_free_descriptor():
    """Use up the file descriptors of this process while the context is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 1  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    unused = []
    try:
        with suppress(OSError):
            while True:
                unused.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in unused:
            os.close(descriptor)


@contextmanager
def unconnected(count):
    with ExitStack() as made:
        yield [made.enter_context(socket.socket()) for _ in range(count)]


def ask(connection, port, request=WHOLE_REQUEST):
    connection.connect(("127.0.0.1", port))
    with suppress(ConnectionError):
        connection.sendall(request)


def test_the_oldest_connection_is_closed_if_no_descriptor_is_free(dashboard, caplog):
    with (
        half_requests(dashboard.port, 1) as (oldest,),
        unconnected(3) as (owner, newer, newest),
    ):
        cookie = b"\r\nCookie: " + dashboard.cookie.encode()
        ask(owner, dashboard.port, WHOLE_REQUEST.replace(b"\r\n\r\n", cookie + b"\r\n\r\n"))
        assert b" 200 " in received(owner)  # the incomplete request was accepted earlier
        with no_free_descriptor():
            ask(newer, dashboard.port)
            assert b" 401 " in received(newer)
            assert received(oldest) == b""
            ask(newest, dashboard.port)
            assert b" 401 " in received(newest)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "accept" in line
    assert "ulimit -n" in line


def test_a_lasting_lack_of_descriptors_is_logged_once(dashboard, caplog, monkeypatch):
    attempts = count_calls(monkeypatch, Refusals, "add")
    monkeypatch.setattr(connections, "ACCEPT_RETRY_SECONDS", 0.0)
    with unconnected(50) as clients:
        with no_free_descriptor():
            for client in clients:
                ask(client, dashboard.port)
            while len(attempts) < 40:
                time.sleep(0)
        assert dashboard.get("/api/runs").status == 200
    assert len(caplog.records) == 1


def count_calls(monkeypatch, owner, name):
    calls, called = [], getattr(owner, name)

    def count(*arguments):
        calls.append(arguments)
        return called(*arguments)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_refusals_are_counted_and_logged_once_per_interval(caplog, monkeypatch):
    monkeypatch.setattr(connections, "LOG_SECONDS", 0.01)

    async def check():
        refusals = Refusals()
        for _ in range(1_001):
            refusals.add("jokes")
        while len(caplog.records) < 2:
            await asyncio.sleep(0)
        refusals.close()
        refusals.close()

    asyncio.run(check())
    first, second = (record.getMessage().split(": ", 1)[1] for record in caplog.records)
    assert (first, second) == ("jokes: 1", "jokes: 1,000")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
