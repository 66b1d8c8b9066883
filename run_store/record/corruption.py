"""Findings of silent data corruption, and the errors with which all ranks report them."""

from typing import Self

from pydantic import model_validator

from foundation.file_model import Count, FileModel
from foundation.wording import counted, join_first, join_items
from run_store.errors import RunError

MAX_PARAMETERS = 8  # maximum that a finding lists, because one flipped bit can change all gradients
SHOWN_PARAMETERS = 2  # maximum that a text lists


class Finding(FileModel):
    """Wrong bits in a step; the base class of findings.

    Attributes:
        checked_step: the step, which was not applied.
        parameters: the first parameters with wrong gradients; "loss" stands for the losses.
        parameter_count: the number of all parameters with wrong gradients.
    """

    checked_step: Count
    parameters: tuple[str, ...]
    parameter_count: Count

    @property
    def text(self) -> str:
        """Description in a sentence."""
        raise NotImplementedError

    @property
    def _parameters_text(self) -> str:
        count = self.parameter_count
        return join_first(self.parameters, SHOWN_PARAMETERS, count, "other parameter")


class CorruptionFinding(Finding):
    """Result of a failed check (`engine.verify_every_steps`).

    Attributes:
        slots: the slots whose losses or gradients differ.
        ranks: the ranks that computed wrong bits, or two ranks of which one computed wrong bits.
        nodes: the name of the node of each of these ranks.
        is_certain: whether all of `ranks` were wrong; otherwise one of two ranks was, and it is
            unknown which one.
        is_reproducible: whether the wrong result was repeated with the same inputs.
        last_verified_step: the last step at which the checks of all these ranks passed.
    """

    slots: tuple[Count, ...]
    ranks: tuple[Count, ...]
    nodes: tuple[str, ...]
    is_certain: bool
    is_reproducible: bool
    last_verified_step: Count

    @model_validator(mode="after")
    def _each_rank_has_a_node(self) -> Self:
        if len(self.nodes) != len(self.ranks):
            found = counted(len(self.nodes), "node")
            raise ValueError(f"expected a node for each rank, found {found}")
        return self

    @property
    def text(self) -> str:
        ranks = [
            f"rank {rank} on node {node}" for rank, node in zip(self.ranks, self.nodes, strict=True)
        ]
        who = join_items(ranks) if self.is_certain else f"either {' or '.join(ranks)}"
        slots = f"{'slot' if len(self.slots) == 1 else 'slots'} {join_items(self.slots)}"
        how = "again" if self.is_reproducible else "but not again"
        return (
            f"silent data corruption: {who} computed other bits than the other ranks in {slots} of "
            f"step {self.checked_step}, {how} when the slot was repeated. The difference is in "
            f"{self._parameters_text}. The step was not applied"
        )


class ReductionFinding(Finding):
    """Step whose summed gradients were wrong (`engine.verify_reductions`).

    Attributes:
        is_repeated: whether the step's passes had been repeated after another wrong sum. The ranks
            then end; otherwise the passes are repeated.
    """

    is_repeated: bool

    @property
    def text(self) -> str:
        how = " again, after the step's passes were repeated" if self.is_repeated else ""
        return (
            f"silent data corruption: the sum of the gradients of {self._parameters_text} over "
            f"all slots was wrong in step {self.checked_step}{how}. The gradients were not applied"
        )


class SilentCorruptionError(RunError):
    """A rank has computed wrong bits; the step in which this was found is not applied."""

    def __init__(self, finding: CorruptionFinding) -> None:
        super().__init__(finding)
        self.finding = finding

    def __str__(self) -> str:
        return self.finding.text


class ReductionError(RunError):
    """Summed gradients of a step were wrong twice; the step is not applied."""

    def __init__(self, finding: ReductionFinding) -> None:
        super().__init__(finding)
        self.finding = finding

    def __str__(self) -> str:
        return f"{self.finding.text}. Test the memory of the nodes and the network between them"
