"""`transloom serve` as a process with replica processes.

Most tests share a server and depend on their order, because they add checkpoints to its run.
"""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from ipaddress import ip_address

import psutil
import pytest
from support.cluster.processes import wait_until
from support.dashboard.running import HANG_SECONDS
from support.serving.asking import ask, numbers, standing
from support.serving.served import served

from transloom import ServedTranslator
from transloom.cli.sweep_runs import TRANSLOOM
from transloom.inference.translator import Translator

pytestmark = pytest.mark.long

SENTENCES = ["je suis étudiant", "elle est là", "il détestait la salade", "nous sommes ici"]
REQUESTS = 200
CLIENTS = 32
SMALL_BATCHES = ("--batch-tokens", "256", "--max-waiting", "2000")


@contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """Suspend processes, such as replicas, while the context is open."""
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


def test_only_the_server_process_listens_and_only_on_loopback(serving):
    server = psutil.Process(serving.process.pid)
    (replica, other) = serving.replicas()
    opened = {
        (process.pid, connection.laddr.ip)
        for process in (server, replica, other)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    ((pid, address),) = opened
    assert pid == server.pid
    assert ip_address(address).is_loopback


def test_replicas_ignore_sigterm(serving):
    """A service manager may send SIGTERM to all processes while requests are still answered."""
    before = serving.replicas()
    for replica in before:
        replica.terminate()
    assert len(ServedTranslator(serving.address).translate(SENTENCES)) == len(SENTENCES)
    assert serving.replicas() == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_each_request_is_answered_once_if_a_replica_is_lost(serving, how):
    expected = dict(zip(SENTENCES, Translator.load(serving.run).translate(SENTENCES), strict=True))
    before = numbers(serving.address)
    victim = serving.replicas()[0]

    def ask_for_a_while(client):
        answers = []
        while victim.is_running() or not answers:
            sentence = SENTENCES[(client + len(answers)) % len(SENTENCES)]
            status, answer = ask(serving.address, [sentence])
            answers.append((status, answer["translations"][0][0]["text"], expected[sentence]))
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(ask_for_a_while, client) for client in range(CLIENTS)]
        wait_until(lambda: _requests(numbers(serving.address)) > _requests(before) + CLIENTS)
        victim.send_signal(how)
        answers = [answer for one in asked for answer in one.result(HANG_SECONDS)]
    assert {status for status, _, _ in answers} == {200}
    assert [text for _, text, _ in answers] == [text for _, _, text in answers]
    after = numbers(serving.address)
    assert _requests(after) - _requests(before) == len(answers)
    for name in ("transloom_serve_sentences_total", "transloom_serve_batch_sentences_sum"):
        assert after[name] - before[name] == len(answers)
    assert (
        after["transloom_serve_lost_batches_total"] > before["transloom_serve_lost_batches_total"]
    )
    wait_until(lambda: standing(serving.address)["replicas"] == 2)
    assert victim not in serving.replicas()


def _requests(found):
    return found["transloom_serve_request_seconds_count"]


def test_all_queued_requests_are_answered_if_a_replica_is_killed(serving):
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


def test_a_newer_checkpoint_is_loaded_without_failed_requests(serving, add):
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
            wait_until(lambda: len(checkpoints) == 2)  # the new checkpoint has answered a request
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


def test_a_damaged_checkpoint_is_reported_and_not_loaded(serving, add):
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


def test_a_killed_server_leaves_no_replica(serving):
    replicas = serving.replicas()
    assert len(replicas) == 2
    serving.process.kill()
    _, alive = psutil.wait_procs(replicas, HANG_SECONDS)
    assert not alive


def test_a_stopped_server_answers_accepted_requests_and_leaves_no_replica(run_with):
    with served(run_with(20), *SMALL_BATCHES) as server:
        replicas = server.replicas()
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
        _, alive = psutil.wait_procs(replicas, HANG_SECONDS)
        assert not alive


def test_a_server_that_is_stopped_during_its_start_leaves_no_replica(run_with):
    command = [*TRANSLOOM, "serve", run_with(20)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = psutil.Process(process.pid)
        wait_until(server.children)
        replicas = server.children()
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0
        assert process.stdout.read().endswith("Stopped.\n")  # a warning about the port may precede
    _, alive = psutil.wait_procs(replicas, HANG_SECONDS)
    assert not alive
