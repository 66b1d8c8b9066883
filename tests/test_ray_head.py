"""The Ray head of the tests: hanging starts fail, and a dead head is started again."""

import os
import re
import tempfile
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
from support.cluster import ray_head
from support.cluster.processes import is_alive, wait_until


def test_a_hanging_start_is_retried_and_fails_with_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, started = tmp_path / "ray", tmp_path / "started"
    program.write_text(f"#!/bin/sh\necho $$ >>{started}\necho some output\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(ray_head, "RAY", program)
    monkeypatch.setattr(ray_head, "STARTS", 2)
    monkeypatch.setattr(ray_head, "START_SECONDS", 1.0)
    with pytest.raises(AssertionError, match="has failed 2 times: some output"):
        ray_head.RayHead(tmp_path, cpus=1)
    first, second = map(int, started.read_text().split())
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (first, second)))
    assert os.getpid() not in (first, second)


@pytest.mark.long
def test_a_dead_head_is_started_again_and_the_dead_process_reported() -> None:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short paths for sockets
        head = ray_head.RayHead(Path(folder), cpus=1)
        try:
            assert head.start_again_if_dead() == ""
            children = psutil.Process(head.process_id).children(recursive=True)
            (raylet,) = [process for process in children if process.name() == "raylet"]
            raylet.kill()
            wait_until(lambda: not is_alive(raylet.pid))
            assert re.search(r"raylet.*exit code.*-9", head.start_again_if_dead())
            assert head.is_alone()
        finally:
            head.stop()


def test_a_busy_head_is_asked_again_for_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"node_id": "one", "state": "ALIVE"}
    answers = Mock(side_effect=[OSError("500"), {"data": {"result": {"result": [node]}}}])
    monkeypatch.setattr(ray_head.RayHead, "ask", answers)
    assert object.__new__(ray_head.RayHead).alive_nodes() == {"one"}
