"""The record of collectives of a rank whose main thread waits in a collective."""

import json
import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.ranks.rank_pool import RankPool

from cluster.health.collectives import find_absent_ranks
from cluster.health.hang_detector import Position
from trainer.process import flight_recorder
from trainer.process.flight_recorder import collectives_record, enable_recorder
from trainer.process.placement import Placement


def record_with_pending(count: int) -> bytes:
    """Return the record once it has `count` incomplete collectives; torch updates it late."""
    while True:
        record = collectives_record()
        entries = json.loads(record)["torch"].get("entries", [])
        pending = [e for e in entries if not e["retired"] and e["state"] != "completed"]
        if len(pending) == count:
            return record
        time.sleep(0.01)


def records_while_rank_0_waits(placement: Placement, folder: Path) -> bytes:
    """Return a record; rank 1 enters the last collective after rank 0's record is read."""
    group = dist.new_group([0, 1])
    dist.all_reduce(torch.ones(3))
    dist.broadcast(torch.ones(2, 5, dtype=torch.float64), 0, group=group)
    done, records = folder / "done", []
    if placement.rank == 0:

        def read() -> None:
            time.sleep(0.5)  # by then the main thread has entered the collective
            records.append(record_with_pending(1))
            done.touch()

        thread = threading.Thread(target=read)
        thread.start()
        dist.all_reduce(torch.ones(7, 2, dtype=torch.bfloat16), group=group)
        thread.join()
    else:
        records.append(record_with_pending(0))
        while not done.exists():
            time.sleep(0.01)
        dist.all_reduce(torch.ones(7, 2, dtype=torch.bfloat16), group=group)
    return records[0]


def test_a_thread_finds_the_collective_in_which_the_main_thread_waits(tmp_path):
    with closing(RankPool(2, "spawn")) as pool:
        records = pool.run(records_while_rank_0_waits, tmp_path)
    positions = [Position("step", 4), Position("data", 4)]
    finding = find_absent_ranks(dict(enumerate(records)), positions, ["left", "right"])
    assert finding.text == (
        "Rank 1 on right did not enter gloo:all_reduce of 7×2 BFloat16 (number 2 of group 1), "
        "which rank 0 entered in step 4"
    )


def test_a_process_without_a_group_has_an_empty_record_and_does_not_import_torch(monkeypatch):
    monkeypatch.delenv("TORCH_FR_BUFFER_SIZE", raising=False)
    assert collectives_record() == flight_recorder.NO_COLLECTIVES
    monkeypatch.setattr(flight_recorder.sys, "modules", {})
    assert collectives_record() == flight_recorder.NO_COLLECTIVES


@pytest.mark.parametrize("name", ["TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"])
def test_a_buffer_size_that_the_user_sets_is_kept(monkeypatch, name):
    for variable in flight_recorder._VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, "0")
    enable_recorder()
    assert [v for v in flight_recorder._VARIABLES if v in os.environ] == [name]
    assert collectives_record() == b""
    monkeypatch.delenv(name)
    enable_recorder()
    assert os.environ["TORCH_FR_BUFFER_SIZE"] == str(flight_recorder.ENTRIES)
    monkeypatch.delenv("TORCH_FR_BUFFER_SIZE")


def test_a_record_beyond_the_limit_is_reduced_to_active_collectives(monkeypatch, tmp_path):
    """This also checks that torch's private function still has its name and options."""
    calls = []

    def dump(**options):
        calls.append(options)
        return b"{}" if options["onlyActive"] else b" " * (flight_recorder.MAX_BYTES + 1)

    assert callable(torch._C._distributed_c10d._dump_fr_trace_json)
    monkeypatch.setattr(torch._C._distributed_c10d, "_dump_fr_trace_json", dump)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert collectives_record() == b'{"groups": {"0": [0]}, "torch": {}}'
    finally:
        dist.destroy_process_group()
    assert [options["onlyActive"] for options in calls] == [False, True]
