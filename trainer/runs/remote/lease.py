"""Ownership of a run in an object store by one driver at a time, in the run's head.

The owner renews its lease with every change of the head, at least every `RENEW_SECONDS`. A
contender takes the run if the owner has released it, is known to be dead, or does not renew its
lease for `LEASE_SECONDS` by the contender's clock. Clocks of different machines are never compared.
A former owner notices its loss when it changes the head the next time, which then fails.
"""

import time
from collections.abc import Callable

from trainer.checkpoints.lease import (
    LEASE_SECONDS,
    RENEW_SECONDS,
    OwnerMetadata,
    this_process,
)
from trainer.errors import LeaseLostError, RunInUseError
from trainer.runs.remote.head import HeadObject, RunHead, RunOwner

WATCH_SECONDS = 1.0


def acquire(
    head: HeadObject, announce: Callable[[str], None], owner: OwnerMetadata | None = None
) -> RunHead:
    """Become the owner of a run, which is created if it does not exist; return the head.

    Args:
        owner: the owner of the local folder, if it trains; None for this process, with which the
            status of the former owner stays valid.
        announce: receives a message if this process must wait until a lease expires.

    Raises:
        RunInUseError: another process owns the run.
        ObjectStoreError: the object store does not answer.
    """
    seen = wait_until_abandoned(head, announce).owner
    me = RunOwner(
        number=seen.number + 1,
        process=owner or _process_with(seen.process.token if seen.process else None),
        renewals=1,
        renewed=time.time(),
    )

    def take(now: RunHead) -> RunHead:
        if now.owner not in (seen, me):
            raise _in_use(head, now.owner)
        update = {"owner": me, "stop_request": None, "data_workers_request": None}
        return now.model_copy(update=update)

    return head.change(take)


def _process_with(token: str | None) -> OwnerMetadata:
    return OwnerMetadata.model_validate(this_process() | {"token": token})


def renewed(head: HeadObject, now: RunHead, number: int) -> RunHead:
    """Return a head with the lease renewed; the owner applies it in each change.

    Raises:
        LeaseLostError: the owner with this number no longer owns the run.
    """
    if now.owner.number != number or now.owner.released:
        raise LeaseLostError(
            f"{head.store.url} is now owned by {owner_text(now.owner)}, because this process did "
            f"not renew its lease for {LEASE_SECONDS:.0f} s. Committed checkpoints remain valid"
        )
    update = {"renewals": now.owner.renewals + 1, "renewed": time.time()}
    return now.model_copy(update={"owner": now.owner.model_copy(update=update)})


def released(head: HeadObject, now: RunHead, number: int) -> RunHead:
    """Return a head without an owner; see `renewed` for the arguments and errors."""
    mine = renewed(head, now, number)
    return mine.model_copy(update={"owner": mine.owner.model_copy(update={"released": True})})


def owner_text(owner: RunOwner) -> str:
    """Return an owner's process, host and time for messages."""
    known = owner.process
    if known is None:
        return "nobody"
    return f"process {known.process} on {known.host} (since {known.since})"


def wait_until_abandoned(head: HeadObject, announce: Callable[[str], None]) -> RunHead:
    """Wait until the owner has left, is dead, or has let its lease expire; return the head then.

    Raises:
        RunInUseError: the owner renewed its lease.
    """
    seen = head.read() or RunHead()
    since, told = time.monotonic(), False
    while not (seen.owner.released or seen.owner.is_known_dead):
        waited = time.monotonic() - since
        if waited >= LEASE_SECONDS:
            break
        if not told and waited > 2 * RENEW_SECONDS:
            told = True
            announce(
                f"{owner_text(seen.owner)} owns this run, but does not renew its lease; waiting "
                f"until the lease of {LEASE_SECONDS:.0f} s has expired"
            )
        time.sleep(WATCH_SECONDS)
        now = head.read()
        if now is None:
            return RunHead(owner=RunOwner(number=seen.owner.number, released=True))
        if now.owner != seen.owner and not now.owner.released:
            raise _in_use(head, now.owner)
        seen = now
    return seen


def _in_use(head: HeadObject, owner: RunOwner) -> RunInUseError:
    return RunInUseError(
        f"{head.store.url} is in use by {owner_text(owner)}. Stop that process (on SIGTERM, a "
        "training saves a checkpoint and ends), or train another run with --run URL"
    )
