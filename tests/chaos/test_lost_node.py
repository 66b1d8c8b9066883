"""A node dies with its data worker and the objects stored there; the stream is unchanged."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from support.recipes import tiny_recipe

from cluster.data.streams import WorkerStreams
from cluster.data.worker_client import WorkerClient
from cluster.data.workers import DataWorkers
from cluster.health.watchdog import HeartbeatSender
from cluster.ray.session import ray_session
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset

pytestmark = pytest.mark.chaos

STEPS, SLOTS = 40, 20
MORE_CPUS_THAN_THE_HEAD_HAS = 5


def test_data_stored_on_a_lost_node_is_requested_again(ray_head, phrasebook):
    settings = tiny_recipe(phrasebook).data_settings
    # Answers are then above 100 kB, so Ray keeps them in the object store of the worker's node.
    batching = {"max_tokens_per_micro_batch": 2048, "window_shards": 8}
    settings = replace(settings, batching=settings.batching.model_copy(update=batching))
    store, manifest = open_dataset(settings.data)
    reader = WindowReader(store, manifest, settings)
    expected = list(islice(local_rank_steps(reader, Cursor(), 0, 1, SLOTS), STEPS))
    assert sum(m.bytes for m in expected[0].micro_batches) > 150_000

    notices: list[str] = []
    node = ray_head.add_node(cpus=8)
    other = None
    try:
        with ray_session(ray_head.address):
            workers = DataWorkers(
                settings,
                manifest.identity,
                cpus=MORE_CPUS_THAN_THE_HEAD_HAS,
                cache_bytes=100_000_000,
            )
            workers.start(1)
            client = WorkerClient(workers.handles, notices.append)
            streams = WorkerStreams(
                client, rank=0, ranks=1, slots=SLOTS, steps_ahead=8, bytes_ahead=100_000_000
            )
            with HeartbeatSender(lambda: workers.actors):
                steps = streams.open(Cursor())
                received = list(islice(steps, 5))
                node.kill()
                other = ray_head.add_node(cpus=8)
                received += islice(steps, STEPS - 5)
    finally:
        for started in (node, other):
            if started:
                started.kill()
    assert any("was lost" in notice for notice in notices)
    for step, reference in zip(received, expected, strict=True):
        assert step.next_cursor == reference.next_cursor
        for ours, theirs in zip(step.micro_batches, reference.micro_batches, strict=True):
            assert np.array_equal(ours.pair_ids, theirs.pair_ids)
            assert np.array_equal(ours.fields["tgt"].ids, theirs.fields["tgt"].ids)
