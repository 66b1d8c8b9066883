"""Ownership of a run in an object store by one driver at a time, in the run's head.

The owner renews its lease with every change of the head, at least every `RENEW_SECONDS`. A
contender takes the run if the owner has released it, is known to be dead, or does not renew its
lease for `LEASE_SECONDS` by the contender's clock. Clocks of different machines are never compared.
A former owner notices the loss when its next change of the head fails.
"""

import time
from collections.abc import Callable

from run_store.errors import LeaseLostError
from run_store.lease import (
    LEASE_SECONDS,
    OwnerMetadata,
    in_use_error,
    this_process,
    wait_for_expiry,
)
from run_store.remote.head import HeadObject, RunHead, RunOwner

WATCH_SECONDS = 1.0


def acquire(
    head: HeadObject, announce: Callable[[str], None], owner: OwnerMetadata | None = None
) -> RunHead:
    """Become the owner of a run, create the run if it does not exist, and return the head.

    Args:
        owner: the owner of the local folder, if it trains. With None, this process becomes the
            owner, and the status of the former owner stays valid.
        announce: receives a message if this process must wait until a lease expires.

    Raises:
        RunInUseError: another process owns the run.
        ObjectStoreError: the object store does not answer.
    """
    seen = wait_until_abandoned(head, announce).owner
    token = seen.process.token if seen.process else None
    me = RunOwner(
        number=seen.number + 1,
        process=owner or OwnerMetadata.model_validate(this_process() | {"token": token}),
        renewals=1,
        renewed=time.time(),
    )

    def take(now: RunHead) -> RunHead:
        if now.owner not in (seen, me):
            raise in_use_error(head.store.url, owner_text(now.owner))
        update = {"owner": me, "stop_request": None, "data_workers_request": None}
        return now.model_copy(update=update)

    return head.change(take)


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
    seen = RunHead()

    def renewal() -> RunOwner | None:
        nonlocal seen
        gone = RunHead(owner=RunOwner(number=seen.owner.number, released=True))
        seen = head.read() or gone
        return None if seen.owner.released or seen.owner.is_known_dead else seen.owner

    wait_for_expiry(
        renewal, head.store.url, lambda: owner_text(seen.owner), announce, WATCH_SECONDS
    )
    return seen
