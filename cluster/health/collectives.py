"""Comparison of the collectives that the ranks have entered, when one of them hangs.

    rank     its thread for records reads torch's flight recorder  `trainer.process.flight_recorder`
    driver   asks all ranks, and waits for a few seconds            `RankPool.collectives`
             compares the records                                   `find_absent_ranks`

All ranks of a process group enter the same collectives in the same order, and torch numbers them.
The first number at which this does not hold explains the hang:

    some ranks have no entry of this number        they did not enter the collective
    the entries of two ranks describe different    some ranks left out a collective, or entered
    operations, types or shapes                    an additional one
    all ranks have the entry, but it is not        a rank without a record did not enter it; if
    complete                                       there is none, the network or a device hangs

torch marks a collective as complete some milliseconds after it completes. Ranks are asked when they
have made no progress for many seconds, so their records are up to date.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from cluster.health.hang_detector import Position
from foundation.file_model import Count, JsonLimits, parse_object
from run_store.record.hang import (
    MAX_CHARACTERS,
    MAX_DIMENSIONS,
    MAX_RANKS,
    AbsentRank,
    Collective,
    HangFinding,
)

LIMITS = JsonLimits(bytes=8_000_000, values=1_000_000)
# Operations that require equal shapes on all ranks. Other operations, such as a gather, do not.
_EQUAL_SHAPES = ("all_reduce", "allreduce", "broadcast", "reduce", "barrier")

Signature = tuple[str, str, tuple[int, ...]]


class _Entry(BaseModel):
    """Collective in the record of a rank; fields of later versions of torch are ignored."""

    model_config = ConfigDict(frozen=True)

    process_group: tuple[str, str]
    collective_seq_id: Count
    is_p2p: bool = False
    profiling_name: str
    input_sizes: list[list[Count]] = []
    input_dtypes: list[str] = []
    retired: bool = False
    state: str = ""
    time_created_ns: int = 0

    @property
    def dtype(self) -> str:
        return self.input_dtypes[0] if self.input_dtypes else ""

    @property
    def is_pending(self) -> bool:
        return not self.retired and self.state != "completed"

    @property
    def signature(self) -> Signature:
        """Properties that are equal on all ranks."""
        shape = self.input_sizes[0] if self.input_sizes else []
        is_equal = self.profiling_name.endswith(_EQUAL_SHAPES)
        return self.profiling_name, self.dtype, tuple(shape) if is_equal else ()

    @property
    def collective(self) -> Collective:
        name, description = self.process_group
        return Collective(
            group=(name if description in ("", "undefined") else description)[:MAX_CHARACTERS],
            number=self.collective_seq_id,
            operation=self.profiling_name[:MAX_CHARACTERS],
            dtype=self.dtype[:MAX_CHARACTERS],
            shape=tuple(self.input_sizes[0][:MAX_DIMENSIONS]) if self.input_sizes else (),
        )


class _Recorder(BaseModel):
    entries: list[_Entry] = []


class _Record(BaseModel):
    """Result of `collectives_record`."""

    groups: dict[str, list[Count]]
    torch: _Recorder


_OfRank = dict[int, _Entry]  # a rank's entries, by the collective's number


class _Difference(NamedTuple):
    """First collective of a group that does not complete, with the ranks that entered it.

    Attributes:
        absent: the other ranks of the group, each with the collective that it entered instead, if
            any.
    """

    entry: _Entry
    waiting: list[int]
    absent: dict[int, _Entry | None]


def find_absent_ranks(
    records: Mapping[int, bytes], positions: Sequence[Position], nodes: Sequence[str]
) -> HangFinding:
    """Return the first collective that a rank did not enter.

    Args:
        records: the records that arrived, by rank. An empty or unreadable record is treated as
            missing.
        positions: the position of each rank in the training loop.
        nodes: the name of each rank's node in messages.
    """
    readable = {rank: found for rank, text in records.items() if (found := _parsed(text))}
    first = min(_differences(readable), key=lambda found: found.entry.time_created_ns, default=None)
    absent = dict(first.absent) if first else {}
    absent |= dict.fromkeys(rank for rank in range(len(positions)) if rank not in readable)
    waiting = first.waiting if first else []
    return HangFinding(
        hang_step=min(
            (positions[rank].step for rank in waiting or range(len(positions))), default=0
        ),
        collective=first.entry.collective if first else None,
        absent=tuple(
            AbsentRank(
                rank=rank,
                node=nodes[rank][:MAX_CHARACTERS],
                has_record=rank in readable,
                entered=entry.collective.operation_text[:MAX_CHARACTERS] if entry else None,
            )
            for rank, entry in islice(absent.items(), MAX_RANKS)
        ),
        absent_count=len(absent),
        waiting=tuple(waiting[:MAX_RANKS]),
        waiting_count=len(waiting),
    )


def _parsed(text: bytes) -> _Record | None:
    try:
        return _Record.model_validate(parse_object(text, LIMITS))
    except ValueError:
        return None


def _differences(records: Mapping[int, _Record]) -> Iterator[_Difference]:
    """Yield the first collective of each group that does not complete, if it has one."""
    members = {name: ranks for record in records.values() for name, ranks in record.groups.items()}
    groups: dict[str, dict[int, _OfRank]] = {
        name: {rank: {} for rank in ranks if rank in records} for name, ranks in members.items()
    }
    for rank, record in records.items():
        for entry in record.torch.entries:
            if not entry.is_p2p:
                of_rank = groups.setdefault(entry.process_group[0], {}).setdefault(rank, {})
                of_rank.setdefault(entry.collective_seq_id, entry)
    for of_ranks in groups.values():
        if (difference := _first_difference(of_ranks)) is not None:
            yield difference


def _first_difference(of_ranks: Mapping[int, _OfRank]) -> _Difference | None:
    # The buffer of a rank may have lost older collectives.
    oldest = max((min(found) for found in of_ranks.values() if found), default=0)
    numbers = {number for found in of_ranks.values() for number in found if number >= oldest}
    for number in sorted(numbers):
        present = {rank: found[number] for rank, found in of_ranks.items() if number in found}
        signatures = Counter(entry.signature for entry in present.values())
        is_entered_by_all = len(present) == len(of_ranks) and len(signatures) == 1
        if is_entered_by_all and not any(entry.is_pending for entry in present.values()):
            continue
        expected = _expected(signatures, of_ranks[next(iter(present))], number)
        entered = {rank: e for rank, e in present.items() if e.signature == expected}
        absent = {rank: present.get(rank) for rank in of_ranks if rank not in entered}
        return _Difference(next(iter(entered.values())), list(entered), absent)
    return None


def _expected(signatures: Counter[Signature], entries: _OfRank, number: int) -> Signature:
    """Return the signature of the collective that the ranks should have entered.

    This is the signature that most ranks have entered. Among equally frequent signatures, it is the
    one that most often followed the previous collective, since steps repeat the same collectives.

    Args:
        signatures: the candidates, with their numbers of ranks.
        entries: the entries of one rank.
        number: the number of the collective.
    """
    history = [entries[n].signature for n in sorted(entries) if n < number]
    followers = Counter(after for before, after in pairwise(history) if before == history[-1])
    return max(signatures, key=lambda candidate: (signatures[candidate], followers[candidate]))
