"""Find the cause among the ranks' errors, and decide whether to try again."""

import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError

from cluster.errors import RankLostError
from cluster.health.failures import cause_of, failure_of, is_certain
from cluster.health.hang_detector import Position
from data_pipeline.errors import DatasetFileError
from foundation.terminal import full_message
from run_store.errors import RecordInUseError
from trainer.errors import NonFiniteLossError

HERE = Position("step", 25, "epoch 0, window 3")


def raised(cause: Exception) -> Exception:
    """Return the failure of rank 1, whose training raised `cause`."""
    error = RayTaskError("train", "a traceback", cause)
    return failure_of("Rank 1 on node a", HERE, error)


DEATH = failure_of("Rank 0 on node a", HERE, ActorUnavailableError("The actor died.\nmore", None))
BROKEN_CONNECTION = raised(RuntimeError("Connection closed by peer"))


def test_an_unexpected_error_names_rank_phase_and_coordinates():
    assert isinstance(BROKEN_CONNECTION, RankLostError)
    assert str(BROKEN_CONNECTION) == (
        "Rank 1 on node a has failed in phase step of step 25 (epoch 0, window 3): "
        "RuntimeError: Connection closed by peer"
    )
    assert "a traceback" in str(BROKEN_CONNECTION.__cause__)


@pytest.mark.parametrize(
    "cause",
    [
        RuntimeError("NCCL error"),
        OSError(28, "No space left"),
        KeyError("x"),
        RecordInUseError("Another process has been writing metrics.jsonl"),
    ],
)
def test_an_unexpected_error_is_retried(cause):
    assert isinstance(raised(cause), RankLostError)
    assert not is_certain([raised(cause)])


@pytest.mark.parametrize("cause", [NonFiniteLossError("NaN"), DatasetFileError("a", "b", "c")])
def test_an_error_of_transloom_is_reported_unchanged(cause):
    assert raised(cause) is cause
    assert "Rank 1 on node a raised this in phase step" in full_message(cause)
    assert is_certain([BROKEN_CONNECTION, raised(cause)])
    assert cause_of([BROKEN_CONNECTION, raised(cause)]) is cause


def test_the_death_of_a_rank_is_the_cause_of_all_other_errors():
    assert isinstance(DEATH, RankLostError)
    assert str(DEATH).startswith("Rank 0 on node a has died in phase step of step 25 (epoch 0")
    assert "more" not in str(DEATH)
    assert is_certain([BROKEN_CONNECTION, DEATH])
    assert cause_of([BROKEN_CONNECTION, DEATH, raised(NonFiniteLossError("NaN"))]) is DEATH


def test_a_broken_connection_is_not_certain_to_be_the_cause():
    assert not is_certain([BROKEN_CONNECTION])
    assert cause_of([BROKEN_CONNECTION]) is BROKEN_CONNECTION


def test_the_message_of_an_error_omits_tracebacks_and_repeated_notes():
    error = DatasetFileError("a.tar", "1 byte", "none")
    message = str(error)
    error.add_note("In a process of the pool:\nTraceback (most recent call last):\n" + message)
    for _ in range(2):
        error.add_note("(Rank 1 raised this in phase step of step 3.)")
    assert full_message(error) == f"{message} (Rank 1 raised this in phase step of step 3.)"


def test_a_failure_shortens_a_long_error_and_keeps_its_traceback():
    long = raised(RuntimeError("x" * 10_000))
    assert "RuntimeError: xxx" in str(long)
    assert len(str(long)) < 700
    assert "a traceback" in str(long.__cause__)
