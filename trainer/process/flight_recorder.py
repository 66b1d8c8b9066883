"""Record of the collectives that a rank has entered, by torch's flight recorder.

torch records each collective of every process group, gloo or NCCL, in a ring buffer: operation,
shapes, types, group, and whether it is complete. Another thread can read the buffer while the main
thread waits in a collective. The private names of torch were read in torch 2.13
(torch/csrc/distributed/c10d/FlightRecorder.hpp); no pickle is read.
"""

import json
import os
import sys
from typing import Any

ENTRIES = 2000  # collectives in the buffer: several steps, or a part of a step of a large model
MAX_BYTES = 4_000_000  # maximum size of a record
NO_COLLECTIVES = b'{"groups": {}, "torch": {}}'  # record of a process that has not joined a group
# torch reads the first of these variables that is set.
_VARIABLES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")


def enable_recorder() -> None:
    """Set the size of the buffer, unless the environment sets it; call before any group is made.

    A size of 0 in the environment turns the recorder off.
    """
    if not any(name in os.environ for name in _VARIABLES):
        os.environ[_VARIABLES[0]] = str(ENTRIES)


def collectives_record() -> bytes:
    """Return this process's record as JSON: `{"groups": {NAME: [RANK, …]}, "torch": {…}}`.

    `torch` is the record of torch, at most `MAX_BYTES`. The result is empty if the recorder is off.
    A thread may call the function while another thread waits in a collective, but not while another
    thread holds the interpreter lock. The function imports nothing, because an import could wait
    for the main thread.
    """
    if any(os.environ.get(name) == "0" for name in _VARIABLES):
        return b""
    torch: Any = sys.modules.get("torch")
    distributed = sys.modules.get("torch.distributed")
    if torch is None or distributed is None or not distributed.is_initialized():
        return NO_COLLECTIVES
    bindings = torch._C._distributed_c10d
    is_nccl = distributed.get_backend() == "nccl"
    dump = bindings._dump_nccl_trace_json if is_nccl else bindings._dump_fr_trace_json
    world = distributed.distributed_c10d._world
    groups = {
        name: sorted(world.pg_group_ranks.get(group, ()))
        for group, name in list(world.pg_names.items())
    }
    for only_active in (False, True):  # a user's buffer may be larger
        record: bytes = dump(includeCollectives=True, onlyActive=only_active)
        if len(record) <= MAX_BYTES:
            return b'{"groups": %b, "torch": %b}' % (json.dumps(groups).encode(), record)
    return b""
