"""Finding about a hang of the ranks: the first collective that a rank did not enter."""

from typing import Annotated

from pydantic import Field

from foundation.file_model import Count, FileModel
from foundation.wording import counted, join_first

MAX_RANKS = 64  # maximum length of each list of ranks in a finding
MAX_DIMENSIONS = 32
MAX_CHARACTERS = 200
SHOWN_RANKS = 4  # maximum that a text lists

_Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class Collective(FileModel):
    """Collective operation, as torch's flight recorder describes it.

    Attributes:
        group: the name of the process group.
        number: the number of the operation among the collectives of the group, from 1.
        operation: the backend and the operation, such as "gloo:all_reduce".
        dtype: the type of the first input, such as "Float"; empty without an input.
        shape: the shape of the first input.
    """

    group: _Text
    number: Count
    operation: _Text
    dtype: _Text = ""
    shape: Annotated[tuple[Count, ...], Field(max_length=MAX_DIMENSIONS)] = ()

    @property
    def text(self) -> str:
        """Operation and place, such as "gloo:all_reduce of 7×2 Float (number 9 of group 1)"."""
        return f"{self.operation_text} (number {self.number:,} of group {self.group})"

    @property
    def operation_text(self) -> str:
        """Operation, shape and type, such as "gloo:all_reduce of 7×2 Float"."""
        shape = "×".join(map(str, self.shape)) or "1"
        return self.operation + (f" of {shape} {self.dtype}" if self.dtype else "")


class RankOnNode(FileModel):
    """Rank, and where it runs.

    Attributes:
        rank: the number of the rank.
        node: the name of the rank's node in messages; None or empty if it is unknown.
    """

    rank: Count
    node: str | None = None

    @property
    def name(self) -> str:
        """Rank and node, such as "rank 1 on node-2"."""
        return f"rank {self.rank} on {self.node}" if self.node else f"rank {self.rank}"


class AbsentRank(RankOnNode):
    """Rank that has not entered a collective, or whose record is missing.

    Attributes:
        has_record: False if the rank sent no record, because it is stopped, blocked or lost.
        entered: the description of the collective that the rank entered instead, or None.
    """

    node: _Text = ""
    has_record: bool = True
    entered: _Text | None = None


class HangFinding(FileModel):
    """Result of comparing the records of all ranks after a hang.

    Attributes:
        hang_step: the step of the ranks that entered the collective.
        collective: the first collective that does not complete; None if no rank waits in one.
        absent: the first ranks that have not entered the collective or have no record.
        absent_count: the number of all ranks that have not entered it or have no record.
        waiting: the first ranks that entered the collective.
        waiting_count: the number of all ranks that entered it.
    """

    hang_step: Count
    collective: Collective | None = None
    absent: Annotated[tuple[AbsentRank, ...], Field(max_length=MAX_RANKS)] = ()
    absent_count: Count = 0
    waiting: Annotated[tuple[Count, ...], Field(max_length=MAX_RANKS)] = ()
    waiting_count: Count = 0

    @property
    def text(self) -> str:
        """Description in a sentence, without a full stop."""
        silent = [rank.name for rank in self.absent if not rank.has_record]
        missing = [rank for rank in self.absent if rank.has_record]
        waiting = join_first(
            [f"rank {rank}" for rank in self.waiting], SHOWN_RANKS, self.waiting_count
        )
        sentences = []
        if self.collective and missing:
            names = join_first([rank.name for rank in missing], SHOWN_RANKS)
            text = f"{names} did not enter {self.collective.text}, "
            text += f"which {waiting} entered in step {self.hang_step:,}"
            if missing[0].entered:
                text += f"; {missing[0].name} entered {missing[0].entered} instead"
            sentences.append(text)
        if silent:
            names = join_first(silent, SHOWN_RANKS)
            sentences.append(f"{names} sent no record of collectives: stopped, blocked or lost")
        if self.collective and not missing:
            text = f"{waiting} entered {self.collective.text} in step {self.hang_step:,}"
            sentences.append(f"{text}, which does not complete")
        if not self.collective:
            sentences.append(f"no rank waits in a collective of step {self.hang_step:,}")
        text = ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        more = self.absent_count - len(self.absent)
        return f"{text}. Not listed: {counted(more, 'rank')}" if more > 0 else text
