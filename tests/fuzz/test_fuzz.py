"""Randomly damaged files are read or refused with a message.

The tests read a few files of each kind, and all that ever caused a crash; `make fuzz` reads more.
"""

from pathlib import Path
from random import Random

import pytest
from support.fuzz.cases import outcome
from support.fuzz.runner import CRASHES, READ, REFUSED, Job, run
from support.fuzz.target import Target

CASES = 25
TARGETS = ("tar", "tar.gz", "tar.xz", "tar.zst", "shard", "manifest", "checkpoint-header")
TARGETS += ("state-file", "status", "recipe", "sentencepiece")
TARGETS += ("marian-tokenizer", "marian-vocabulary", "marian-config", "marian-pytorch")


@pytest.mark.long
def test_every_damaged_file_is_read_or_refused() -> None:
    """All cases share one process, because importing takes most of the time."""
    kept = Job.kept()
    assert len(kept) == len(list(CRASHES.glob("*-*")))
    outcomes = list(
        run([*kept, *(Job(name, number) for name in TARGETS for number in range(CASES))])
    )
    harm = {job: outcome for job, outcome in outcomes if outcome not in (READ, REFUSED)}
    assert harm == {}
    for name in TARGETS:
        found = {outcome for job, outcome in outcomes if job.target == name}
        assert found == {READ, REFUSED}, name  # both outcomes occur, so the mutations are effective


def no_case(random: Random) -> bytes:
    return b""


def called_for_ever(data: bytes, folder: Path) -> None:
    while True:
        len_of(data)


def len_of(data: bytes) -> int:
    return len(data)


def fails_with(error: BaseException) -> Target:
    def read(data: bytes, folder: Path) -> None:
        raise error

    return Target("x", "x", no_case, read, (OSError,))


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (fails_with(OSError("said in full")), REFUSED),
        (fails_with(OSError("")), "a message of 0 characters"),
        (fails_with(KeyError("x")), "KeyError in test_fuzz.py:read"),
        (fails_with(MemoryError()), "MemoryError in test_fuzz.py:read"),
        (Target("x", "x", no_case, called_for_ever, ()), "TooMuchWorkError in"),
    ],
)
def test_errors_without_a_useful_message_are_findings(target: Target, told: str) -> None:
    assert outcome(target, b"x").startswith(told)
