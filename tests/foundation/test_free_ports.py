"""`free_port` returns no port that is in use, and none twice."""

import socket

import pytest

from foundation import free_ports


def test_free_port_returns_no_port_in_use_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", used := free_ports.free_port()))
        monkeypatch.setattr(free_ports, "_untried", [*range(20_000, 20_030), used])
        given = [free_ports.free_port() for _ in range(15)]
    assert len({used, *given}) == 16
