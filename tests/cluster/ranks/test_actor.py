"""The actor of a rank: what it imports as a spare, and its methods for the supervisor."""

import json
import os
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.cluster.processes import wait_until
from support.command import run_python

from cluster.node_check import actor as node_check_actor
from cluster.ranks import actor as actor_module
from cluster.ranks.actor import RankActor
from cluster.ranks.node_processes import ProcessName
from cluster.ranks.reports import Notice
from run_store.process_identity import start_tick

ROOT = Path(__file__).resolve().parents[3]
# The program runs in a separate process, which has imported nothing else.
PROGRAM = """
import json, sys
from cluster.ranks.actor import RankActor

spare = object.__new__(RankActor.__ray_metadata__.modified_class)
spare.import_trainer("cpu")
names = ["deepspeed.runtime.zero.muon.muon_optimizer", "wave", "there.is.none"]
before = [name in sys.modules for name in names]
spare.prepare((names, None))
after = [name in sys.modules for name in names]
print(json.dumps([before, after, "torch._dynamo" in sys.modules]))
"""


@pytest.mark.long
def test_a_spare_imports_the_modules_of_a_rank_without_the_compiler():
    """One of the modules that an engine imports would import the compiler, which takes seconds."""
    done = run_python(PROGRAM, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    before, after, compiler = json.loads(done.stdout.splitlines()[-1])
    assert before == [False, False, False]
    assert after == [True, True, False]
    assert not compiler


@pytest.fixture
def actor(monkeypatch):
    """Return a function that creates a rank's actor in this process, without Ray."""
    for name in ("CUDA_VISIBLE_DEVICES", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        monkeypatch.setenv(name, "before")
    events = []
    watchdog = SimpleNamespace(heartbeat=lambda: events.append("heartbeat"))
    monkeypatch.setattr(actor_module, "Watchdog", lambda: watchdog)
    for name in ("read_environment", "limit_openmp_spin", "enable_stack_dumps"):
        monkeypatch.setattr(actor_module, name, partial(events.append, name))

    def make(gpu=None):
        made = RankActor.__ray_metadata__.modified_class(gpu)
        assert events == ["read_environment", "limit_openmp_spin", "enable_stack_dumps"]
        made.events = events
        return made

    return make


@pytest.mark.parametrize("gpu", [None, "2"])
def test_a_rank_sees_the_gpu_of_its_bundle(actor, gpu):
    actor(gpu)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == (gpu or "before")
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == ("1" if gpu else "before")


def test_calls_from_the_supervisor_reach_the_rank(actor):
    rank = actor()
    rank._mailbox.notice("one")
    first = rank.poll(0, 0.0)
    assert (first.first, reports_of(first)) == (0, [Notice("one")])
    assert reports_of(rank.poll(1, 0.0)) == []
    rank.use_workers(["a worker"])
    assert rank._client.workers == ["a worker"]
    rank.request_stop()
    assert rank._mailbox.stop_requested()
    assert rank.process_id() == os.getpid()
    assert rank.preparation() == (list(sys.modules), None)
    rank._client._notice("worker 3 is slow")
    assert reports_of(rank.poll(1, 0.0)) == [Notice("worker 3 is slow")]


def test_a_poll_is_a_heartbeat_on_arrival(actor):
    rank = actor()
    rank.events.clear()
    waiting = threading.Thread(target=rank.poll, args=(0, 600.0))
    waiting.start()
    wait_until(lambda: rank.events == ["heartbeat"])
    rank.heartbeat()
    assert rank.events == ["heartbeat"] * 2
    assert waiting.is_alive()
    rank._mailbox.notice("one")
    waiting.join()


def reports_of(batch):
    return [report for _, report in batch.reports]


@pytest.mark.parametrize(
    ("address", "host"), [("10.0.0.7", "10.0.0.7"), ("fd00::7", "[fd00::7]")], ids=["4", "6"]
)
def test_the_rendezvous_of_several_nodes_is_a_free_port(actor, monkeypatch, address, host):
    util = SimpleNamespace(get_node_ip_address=lambda: address)
    monkeypatch.setattr(node_check_actor, "ray", SimpleNamespace(util=util))
    scheme, _, place = actor().rendezvous(one_node=False).partition("://")
    found, _, port = place.rpartition(":")
    assert (scheme, found) == ("tcp", host)
    assert 1024 <= int(port) < 65536


def test_the_rendezvous_of_one_node_is_a_file_named_after_the_process(actor, monkeypatch):
    name = ProcessName("node", os.getpid(), start_tick(os.getpid()))
    monkeypatch.setattr(ProcessName, "of_this_process", lambda: name)
    rank = actor()
    first, second = rank.rendezvous(one_node=True), rank.rendezvous(one_node=True)
    assert first != second
    path = Path(first.removeprefix("file://"))
    assert not path.exists()
    path.touch()
    assert name.rendezvous_files() == [path]
    path.unlink()


def test_modules_that_cannot_be_imported_are_skipped(actor, tmp_path, monkeypatch):
    names = [f"module_{tmp_path.name.replace('-', '_')}_{end}" for end in "abc"]
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{names[0]}.py").write_text("raise RuntimeError('not here')\n")
    (tmp_path / f"{names[1]}.py").write_text("")
    actor().prepare((names, None))
    assert [name in sys.modules for name in names] == [False, True, False]
    del sys.modules[names[1]]
