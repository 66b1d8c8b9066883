"""Replica processes: translations, detection of lost replicas, and failing starts."""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.dashboard.running import HANG_SECONDS

from transloom.inference.serving import replica as replicas
from transloom.inference.serving.batches import Batch, RequestedSearch
from transloom.inference.serving.replica import ReplicaLostError, running_replica
from transloom.inference.serving.settings import ReplicaSettings
from transloom.inference.translator import Translator

pytestmark = pytest.mark.long

SENTENCES = ["je suis étudiant", "elle est là"]
BATCH = Batch(search=RequestedSearch(None, 1, False, False), texts=SENTENCES, prefixes=["", ""])


def with_replica(settings, use):
    """Call a coroutine function with a replica and its listening task; return the result."""

    async def call():
        async with asyncio.timeout(HANG_SECONDS), running_replica(settings) as replica:
            return await use(replica, asyncio.create_task(replica.listen()))

    return asyncio.run(call())


def test_a_replica_translates_and_reports_its_checkpoint(run):
    async def translate(replica, listening):
        return [await replica.translate(BATCH) for _ in range(2)]

    expected = Translator.load(run).translate(SENTENCES)
    for report in with_replica(ReplicaSettings(run), translate):
        assert [of_one[0].text for of_one in report.results] == expected
        assert report.status.checkpoint == "step-00000040"
        assert report.status.damaged == []


def test_a_killed_replica_is_reported_lost_with_its_exit_code(run):
    async def die(replica, listening):
        replica._process.kill()
        await listening

    with pytest.raises(ReplicaLostError, match="exit code -9"):
        with_replica(ReplicaSettings(run), die)


def test_a_replica_is_lost_if_a_batch_takes_too_long(run):
    async def hang(replica, listening):
        replica._process.send_signal(signal.SIGSTOP)
        replica._hang_seconds = 0.5
        await replica.translate(BATCH)

    with pytest.raises(ReplicaLostError, match=r"batch has taken more than 0\.5 s"):
        with_replica(ReplicaSettings(run), hang)


def test_a_replica_without_a_batch_is_lost_if_it_stops_reporting(run, monkeypatch):
    async def fall_silent(replica, listening):
        replica._process.send_signal(signal.SIGSTOP)
        await listening

    monkeypatch.setattr(replicas, "SILENT_SECONDS", 5.0)
    with pytest.raises(ReplicaLostError, match="not reported for 5 s"):
        with_replica(ReplicaSettings(run), fall_silent)


def test_the_error_of_a_failed_replica_start_names_the_cause(run_with, tmp_path):
    run = run_with(20)

    failing = [
        (ReplicaSettings(run, checkpoint="30"), "no checkpoint of step 30"),
        (ReplicaSettings(run, hang_seconds=0.01), r"not reported for 0\.01 s"),
        (replace(ReplicaSettings(run), follow="average"), "none for --follow average yet"),
    ]

    def start(settings, match):
        with pytest.raises(ReplicaLostError, match=match):
            with_replica(settings, None)

    with ThreadPoolExecutor() as pool:
        list(pool.map(start, *zip(*failing, strict=True)))
