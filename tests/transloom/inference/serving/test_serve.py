"""`transloom serve` as a process, on an embedded Ray and on a cluster.

Most tests share the server on an embedded Ray, and their order counts: the run's folder gets newer
checkpoints, and the last of them kills that Ray. The server on a cluster is told to stop.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from ipaddress import ip_address

import psutil
import pytest
from support.cluster.processes import wait_until
from support.dashboard.running import HANG_SECONDS
from support.serving.asking import ask, numbers, standing
from support.serving.served import REPLICA, served

from transloom import ServedTranslator
from transloom.inference.translator import Translator

pytestmark = pytest.mark.long

SENTENCES = ["je suis étudiant", "elle est là", "il détestait la salade", "nous sommes ici"]
REQUESTS = 200
SMALL_BATCHES = ("--batch-tokens", "256", "--max-waiting", "2000")


@contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """Suspend processes, such as replicas, for the time of the context."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@pytest.fixture(scope="module")
def serving(run_with):
    with served(run_with(20), "--replicas", "2", *SMALL_BATCHES) as server:
        yield server


def test_only_this_machine_reaches_what_it_opens(serving):
    """Ray Serve would open a port of each replica to everybody, without a token."""
    server = psutil.Process(serving.process.pid)
    opened = {
        (process.name(), connection.laddr.ip)
        for process in (server, *server.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert len([name for name, _ in opened if name.startswith(REPLICA)]) >= 1
    for name, address in opened:
        assert ip_address(address.removeprefix("::ffff:")).is_loopback, (name, address)


def test_all_requests_are_answered_while_a_replica_is_killed(serving):
    expected = Translator.load(serving.run).translate(SENTENCES)
    client = ServedTranslator(serving.address, patience_seconds=HANG_SECONDS)
    with ThreadPoolExecutor(REQUESTS) as pool:
        asked = [pool.submit(client.translate, SENTENCES * 2) for _ in range(REQUESTS)]
        wait(asked, HANG_SECONDS, FIRST_COMPLETED)
        serving.replicas()[0].kill()
        left = sum(not one.done() for one in asked)
        answers = [one.result(HANG_SECONDS) for one in asked]
    assert left
    assert answers == [expected * 2] * REQUESTS


def test_a_newer_checkpoint_is_taken_up_without_a_lost_request(serving, add):
    wait_until(lambda: standing(serving.address)["replicas"] == 2)
    statuses, checkpoints = set(), set()
    with ThreadPoolExecutor(4) as pool:
        over = False

        def go_on():
            while not over:
                status, answer = ask(serving.address, SENTENCES)
                statuses.add(status)
                checkpoints.update(answer["checkpoints"])

        asking = [pool.submit(go_on) for _ in range(4)]
        try:
            wait_until(lambda: checkpoints)
            add(serving.run, 40)
            wait_until(lambda: standing(serving.address)["checkpoints"] == ["step-00000040"])
        finally:
            over = True
        for one in asking:
            one.result()
    assert statuses == {200}
    assert checkpoints == {"step-00000020", "step-00000040"}
    translator = Translator.load(serving.run)
    assert translator.checkpoint.step == 40
    found = ServedTranslator(serving.address).translate(SENTENCES)
    assert found == translator.translate(SENTENCES)


def test_a_damaged_one_is_told_of_and_the_present_one_is_kept(serving, add):
    add(serving.run, 60, spoilt=True)
    wait_until(lambda: standing(serving.address)["damaged"])
    now = standing(serving.address)
    assert now["ready"]
    assert "step-00000060" in now["damaged"][0]
    assert now["checkpoints"] == ["step-00000040"]
    told = numbers(serving.address)
    assert told["transloom_serve_damaged_checkpoints"] == 1
    assert told["transloom_serve_checkpoint_step"] == 40
    status, answer = ask(serving.address, SENTENCES)
    assert (status, answer["checkpoints"]) == (200, ["step-00000040"])


def test_a_server_whose_ray_is_lost_says_so_and_leaves_nothing(serving):
    below = psutil.Process(serving.process.pid).children(recursive=True)
    (raylet,) = [process for process in below if process.name() == "raylet"]
    raylet.kill()
    assert serving.process.wait(HANG_SECONDS) == 1
    said = " ".join(serving.process.stdout.read().split())
    assert "Ray is lost on this machine: start the server again" in said
    _, alive = psutil.wait_procs(below, HANG_SECONDS)
    assert not alive


def check_that_it_stops(server, replicas):
    """Tell a server to stop while its replicas translate nothing: it answers what it has taken."""
    with ThreadPoolExecutor(20) as pool:
        with stopped(replicas):
            asked = [pool.submit(ask, server.address, SENTENCES * 10) for _ in range(20)]
            wait_until(lambda: standing(server.address)["waiting_sentences"] >= 600)
            server.process.send_signal(signal.SIGTERM)
            line = server.process.stdout.readline()
            while not line.startswith("Stopping"):
                line = server.process.stdout.readline()
        statuses = [one.result(HANG_SECONDS)[0] for one in asked]
    assert statuses.count(200) >= 15
    assert set(statuses) <= {200, 503}
    assert server.process.wait(HANG_SECONDS) == 0
    assert "Stopped." in server.process.stdout.read()


def test_on_a_cluster_it_takes_away_what_it_has_started(run_with, ray_head):
    """Others' applications would stay; where there are none Ray Serve goes, too."""
    serve_actors = "(ServeController|ServeReplica)"
    with served(run_with(20), *SMALL_BATCHES, "--address", ray_head.address) as server:
        replicas = ray_head.actors("ServeReplica")
        assert len(replicas) == 1
        expected = Translator.load(server.run).translate(SENTENCES)
        assert ServedTranslator(server.address).translate(SENTENCES) == expected
        actors = ray_head.actors(serve_actors)
        check_that_it_stops(server, replicas)
        _, alive = psutil.wait_procs(actors, HANG_SECONDS)
        assert not alive
        assert not ray_head.actors(serve_actors)


@pytest.mark.chaos  # the short forms are above: one server is told to stop, the other's Ray ends
def test_told_to_stop_it_leaves_nothing_of_an_embedded_ray(run_with):
    with served(run_with(20), *SMALL_BATCHES) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        check_that_it_stops(server, server.replicas())
        _, alive = psutil.wait_procs(children, HANG_SECONDS)
        assert not alive
