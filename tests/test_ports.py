"""`free_port` returns no port twice, even if its server does not listen yet."""

from pathlib import Path

import pytest
from support import ports


def test_free_port_returns_distinct_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outgoing = tmp_path / "range"
    outgoing.write_text(f"{ports.AFTER_RAY_WORKERS + 20} 60999\n")
    monkeypatch.setattr(ports, "OUTGOING_PORTS", outgoing)
    monkeypatch.setattr(ports, "_given", set())
    given = {ports.free_port() for _ in range(15)}
    assert len(given) == 15
