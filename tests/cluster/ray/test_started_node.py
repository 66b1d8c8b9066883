"""Nodes of a private cluster, next to another Ray on the same machine."""

import os
import re
import secrets
from queue import SimpleQueue

import psutil
import pytest
from support.cluster.processes import command_of

from cluster.ray.folder_access import access_by_others
from cluster.ray.marked_processes import MARK
from cluster.ray.started_node import NodeSettings, StartedNode

SETTINGS = NodeSettings(cpus=1, gpus=0, niceness=3)


@pytest.fixture
def token(tmp_path, monkeypatch):
    """Return a token that is in a file and not in a variable, as in a Slurm job."""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    return file.read_text()


def started_by_us():
    """Return the processes that a node of this test runs or has left."""
    mine = f"{os.getpid()}-"
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(mine):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_two_nodes_run_next_to_a_different_ray_cluster(ray_head, token):
    others = {p.pid for p in psutil.Process(ray_head.process_id).children(recursive=True)}
    head = StartedNode(SETTINGS, None)
    node = StartedNode(SETTINGS, head.head)
    try:
        assert node.head == head.head != ray_head.address
        folders = [one._folder.path for one in (head, node)]
        assert folders[0] != folders[1]
        for folder in folders:
            (session,) = folder.glob("session_2*")  # each in a private folder
            assert (session / "sockets" / "plasma_store").exists()
            assert access_by_others(session) is None
        commands = [" ".join(command_of(process)) for process in started_by_us()]
        assert sum("raylet/raylet" in command for command in commands) == 2
        ports = re.findall(r"-port=(\d\d+)", " ".join(c for c in commands if "ray start" in c))
        assert max(map(int, ports)) < 32_768  # not for outgoing connections
        (client_server,) = (c for c in commands if "ray.util.client.server" in c)
        assert ":0 " not in client_server  # it does not wait for the port of an agent
        assert not any(token in command for command in commands)
        ended = SimpleQueue()
        node.on_exit(lambda: ended.put("the node"))
        raylets = [p for p in started_by_us() if p.name() == "raylet"]
        (raylet,) = [p for p in raylets if str(folders[1]) in " ".join(command_of(p))]
        raylet.kill()
        assert ended.get(timeout=600) == "the node"
    finally:
        node.end()
        head.end()
    assert started_by_us() == []
    assert not any(folder.parent.exists() for folder in folders)
    alive = {p.pid for p in psutil.Process(ray_head.process_id).children(recursive=True)}
    assert {p for p in others if psutil.pid_exists(p)} <= alive
    assert ray_head.ask("jobs/") is not None
