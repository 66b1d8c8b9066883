"""The Ray head of the tests: a start that hangs fails with its output within a limit of time."""

import os
from pathlib import Path

import pytest
from support.cluster import ray_head
from support.cluster.processes import wait_until


def test_a_start_that_hangs_is_tried_again_and_then_fails_with_its_output(
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
