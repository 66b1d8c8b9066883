"""Jobs for a `FaultServer`: writing a second checkpoint, with a fault at each file operation."""

import shutil
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

from run_store import lease as lease_module
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.lease import Lease
from support.files.file_faults import ENDED, Fault, struck_child
from support.quality.planting import plant
from support.records.checkpoints import (
    KEEP_ONE,
    Listener,
    check_stepped,
    make_header,
    stepped_share,
)
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter

RANKS = 2


def strike_everywhere(folder: Path, fault: Fault) -> list[int]:
    """Return the newest checkpoint's step after a fault at the first, second, … operation."""
    # The owner's name may be lost at a power failure.
    plant(lease_module, LEASE_SECONDS=0.05, POLL_SECONDS=0.01)
    original = folder / f"{fault.name}-original"
    own_and_save(original, 10)
    newest = []
    for k in count(1):
        run = Path(shutil.copytree(original, folder / f"{fault.name}-{k}"))
        job = save_twice if fault is Fault.NO_SPACE else save_once
        code, operations = struck_child(k, fault, lambda run=run, job=job: job(run))
        struck = k <= operations
        expected = ENDED if struck and fault is not Fault.NO_SPACE else 0
        assert code == expected, f"operation {k}: exit code {code}"
        newest.append(check_and_go_on(run, f"operation {k}"))
        shutil.rmtree(run)
        if not struck:
            return newest
    raise AssertionError


def save_once(run: Path) -> None:
    assert own_and_save(run, 20) == [20]


def save_twice(run: Path) -> None:
    """Save two steps while one operation fails, which prevents the start or loses one step."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(Lease(run))
        except OSError:
            return
        assert save(run, lease, 20, 30) in ([30], [20], [20, 30])


def own_and_save(run: Path, *steps: int) -> list[int]:
    with Lease(run) as lease:
        return save(run, lease, *steps)


def save(run: Path, lease: Lease, *steps: int) -> list[int]:
    """Save these steps like ranks and supervisor; return the steps that became checkpoints."""
    committer = CheckpointCommitter(lease, run / "checkpoints", KEEP_ONE, RANKS, print)
    committed = []
    for step in steps:
        for rank in range(RANKS):
            _write_share(committer, rank, step)
        if committer.newest_step == step:
            committed.append(step)
    return committed


def check_and_go_on(run: Path, when: str) -> int:
    """Check that a new owner finds only complete checkpoints, and can save another one cleanly."""
    checkpoints = run / "checkpoints"
    with Lease(run):
        found = check_stepped(checkpoints, when)
    assert own_and_save(run, 40) == [40], when
    names = {path.name for path in checkpoints.iterdir()}
    assert names == {"step-00000040"}, f"{when}: {names}"
    assert len(list((run / "owners").iterdir())) == 1, when
    return found[-1].step


def _write_share(committer: CheckpointCommitter, rank: int, step: int) -> None:
    share = stepped_share(step, rank)
    writer = CheckpointWriter(
        lambda: share,
        work=committer.work,
        attempt=committer.attempt,
        placement=Placement(rank=rank, world_size=RANKS),
        supervision=Listener(committer),  # type: ignore[arg-type]
    )
    with closing(writer):
        writer.save(make_header(step), final=False)
