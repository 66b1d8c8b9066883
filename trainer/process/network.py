"""Network library of the ranks, and the environment variables that configure it.

    all of NCCL_*, FI_*, UCX_*, GLOO_*, of each rank    ─▶ network.json of the run folder
    those that can change the order of sums             ─▶ numerics fingerprint

docs/decisions/0121-network-variables.md has the reasons for the choice.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

from data_pipeline.storage.regular_files import write_atomically
from foundation.location import without_credentials
from trainer.process.distributed import gather_texts
from trainer.process.placement import Placement

MAX_VARIABLES, MAX_CHARACTERS = 200, 200
HIDDEN = "(not recorded)"
_VARIABLE = re.compile(r"(NCCL|FI|UCX|GLOO)_[A-Z0-9_]{1,100}")
# Names of values that may grant access, such as FI_PSM3_UUID, the key of a job's connections.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CRED|UUID|COMM_ID")
# Variables that change what is printed or how bytes travel, but not which sums NCCL computes.
_NEUTRAL = re.compile(
    r"NCCL_(DEBUG|SOCKET|OOB|RAS|PROFILER|SET_THREAD|IGNORE_CPU|COMM_ID"
    r"|IB_(TIMEOUT|RETRY|GID|SL|TC|FIFO|PKEY|ADDR|ROCE|AR|RETURN|WARN|PCI_RELAXED|QPS|SPLIT))\w*"
    r"|GLOO_\w+|(?!FI_PROVIDER$)FI_\w+|(?!UCX_TLS$|UCX_NET_DEVICES$)UCX_\w+"
)


def network_variables() -> dict[str, str]:
    """Return this process's variables of network libraries, without secrets, by name."""
    names = sorted(filter(_VARIABLE.fullmatch, os.environ))[:MAX_VARIABLES]
    values = {name: os.environ[name].encode(errors="replace").decode() for name in names}
    shown = {name: without_credentials(value)[:MAX_CHARACTERS] for name, value in values.items()}
    return {name: HIDDEN if _SECRET.search(name) else value for name, value in shown.items()}


def network_library(placement: Placement) -> str:
    """Return the library that computes sums over the ranks, and its version."""
    if placement.backend == "gloo":
        return f"gloo of torch {torch.__version__}"
    return f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"


def summation(placement: Placement) -> str:
    """Return the library and the variables that can change the order of sums over the ranks."""
    variables = network_variables().items()
    chosen = (f"{name}={value}" for name, value in variables if not _NEUTRAL.fullmatch(name))
    return ", ".join([network_library(placement), *chosen])


def record_network(file: Path, placement: Placement) -> None:
    """Let rank 0 write the library and all ranks' variables into a file; a collective.

    Nothing depends on the file, so a full disk does not end the run.
    """
    ranks_of: dict[str, list[int]] = {}
    for rank, text in enumerate(gather_texts(json.dumps(network_variables()), placement)):
        ranks_of.setdefault(text, []).append(rank)
    if placement.rank == 0:
        groups = [{"ranks": r, "variables": json.loads(text)} for text, r in ranks_of.items()]
        content = {"version": 1, "library": network_library(placement), "groups": groups}
        with suppress(OSError):
            write_atomically(file, json.dumps(content, indent=1) + "\n")
