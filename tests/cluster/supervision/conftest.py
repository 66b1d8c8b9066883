"""Runs of a scripted cluster, for the tests of their supervision."""

import pytest
from support.cluster.scripted_cluster import scripted_run

from cluster.supervision import restart_loop


@pytest.fixture
def scripted(phrasebook, tmp_path, monkeypatch):
    monkeypatch.setattr(restart_loop, "WAIT_SECONDS", 0.001)

    def start(scripts, **options):
        return scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch, **options)

    return start
