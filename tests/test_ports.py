"""Ports that tests give to servers: none is given twice, though its server does not listen yet."""

from pathlib import Path

import pytest
from support import ports


def test_each_port_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outgoing = tmp_path / "range"
    outgoing.write_text(f"{ports.AFTER_RAY_WORKERS + 20} 60999\n")
    monkeypatch.setattr(ports, "OUTGOING_PORTS", outgoing)
    monkeypatch.setattr(ports, "_given", set())
    given = {ports.free_port() for _ in range(15)}
    assert len(given) == 15
