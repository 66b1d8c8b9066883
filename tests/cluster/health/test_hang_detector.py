"""Decide when a rank hangs, and report it."""

import pytest

from cluster.config import DeadlinesConfig
from cluster.health.hang_detector import HangDetector, Position

DEADLINES = DeadlinesConfig(
    start_seconds=90, step_seconds=10, validation_seconds=40, save_seconds=20, answer_seconds=5
)
NAMES = ["Rank 0 on node a", "Rank 1 on node b"]


def detector_at(*positions: Position, now: float = 0.0) -> HangDetector:
    """Return a detector of ranks that reached these positions and answered at time `now`."""
    detector = HangDetector(DEADLINES, NAMES[: len(positions)], now)
    for rank, position in enumerate(positions):
        detector.on_progress(rank, position, now)
    return detector


def hung(detector: HangDetector, now: float, ranks=(0, 1)) -> str | None:
    """Return the message of a hang at time `now`, when `ranks` answer; None if no rank hangs."""
    for rank in ranks:
        detector.on_answer(rank, now)
    error = detector.hung(ranks, now)
    return str(error) if error else None


@pytest.mark.parametrize(
    ("phase", "seconds"),
    [("start", 90), ("data", 10), ("step", 10), ("validation", 40), ("save", 20), ("done", 20)],
)
def test_every_phase_has_its_deadline(phase, seconds):
    detector = detector_at(Position(phase, 7), Position(phase, 7))
    assert hung(detector, seconds) is None
    assert "hangs" in hung(detector, seconds + 1)


def test_progress_within_a_phase_restarts_its_deadline():
    detector = detector_at(Position("step", 7), Position("step", 7))
    for rank in (0, 1):
        detector.on_progress(rank, Position("step", 7, "window 3"), 9.0)
    assert hung(detector, 18.0) is None
    assert hung(detector, 20.0) is not None


def test_the_rank_that_has_not_entered_the_latest_phase_is_reported():
    validating = Position("validation", 24)
    stepping = Position("step", 25, "epoch 0, window 3")
    detector = detector_at(stepping, validating)
    assert hung(detector, 11.0) is None  # rank 0 waits for rank 1 longer than a step may take
    assert hung(detector, 41.0) == (
        "Rank 1 on node b hangs: it has been in phase validation of step 24 for 41 s, while others "
        "are in phase step of step 25 (epoch 0, window 3). If this phase can take that "
        "long, raise cluster.deadlines.validation_seconds, which is 40 s"
    )


def test_the_message_says_if_all_ranks_are_at_the_same_position():
    position = Position("step", 25, "epoch 0, window 3")
    text = hung(detector_at(position, position), 11.0)
    assert "in phase step of step 25 (epoch 0, window 3) for 11 s, like all other ranks." in text
    assert "cluster.deadlines.step_seconds, which is 10" in text


def test_among_ranks_at_the_same_step_the_one_stalled_longest_is_reported():
    detector = detector_at(Position("step", 25), Position("step", 25))
    detector.on_progress(0, Position("step", 25, "epoch 0, window 3"), 8.0)
    text = hung(detector, 11.0)
    assert text.startswith("Rank 1 on node b hangs: it has been in phase step of step 25 for 11 s")


def test_a_rank_that_has_returned_need_not_answer():
    detector = detector_at(Position("done", 30), Position("step", 30))
    detector.on_progress(1, Position("done", 30), 19.0)
    assert hung(detector, 21.0, ranks=(1,)) is None


def test_a_silent_process_is_named_in_any_phase():
    detector = detector_at(Position("validation", 24), Position("validation", 24))
    detector.on_answer(0, 6.0)
    error = detector.hung([0, 1], 6.0)
    assert str(error) == (
        "Rank 1 on node b has not answered for 5 s, in phase validation of step 24. If its machine "
        "can be too busy to answer in time, raise cluster.deadlines.answer_seconds"
    )


def after_steps(*seconds: float, deadlines: DeadlinesConfig) -> tuple[HangDetector, float]:
    """Return a detector after two ranks computed steps of these durations, and the current time.

    Rank 0 has its data at once and waits 100 s for rank 1's; both then compute.
    """
    detector, now = HangDetector(deadlines, NAMES, 0.0), 0.0
    for step, duration in enumerate(seconds, 1):
        for rank in (0, 1):
            detector.on_progress(rank, Position("data", step), now)
        detector.on_progress(0, Position("step", step), now)
        assert hung(detector, now + 100.0) is None
        now += 100.0
        detector.on_progress(1, Position("step", step), now)
        now += duration
    for rank in (0, 1):
        detector.on_progress(rank, Position("data", len(seconds) + 1), now)
    return detector, now


LONG = DeadlinesConfig(step_seconds=600)


@pytest.mark.parametrize(
    ("steps", "deadline"),
    [
        ([1.0] * 9, 600.0),  # too few steps, so the setting applies
        ([1.0] * 10, 30.0),
        ([5.0] * 10, 50.0),
        ([1.0] * 50 + [5.0] * 26, 50.0),  # only the newest 50 steps count
        ([5.0] * 26 + [1.0] * 50, 30.0),
        ([100.0] * 10, 600.0),  # the setting is the upper limit
    ],
)
def test_the_deadline_of_a_step_is_computed_from_earlier_steps(steps, deadline):
    detector, now = after_steps(*steps, deadlines=LONG)
    step = len(steps) + 1
    detector.on_progress(0, Position("step", step), now)
    detector.on_progress(1, Position("step", step), now + 400.0)
    now += 400.0
    assert hung(detector, now + deadline) is None
    text = hung(detector, now + deadline + 1)
    assert f"has been in phase step of step {step} for {deadline + 1:g} s" in text
    if deadline < 600:
        assert f"The deadline of {deadline:g} s was computed" in text
        assert "cluster.deadlines.adaptive_step=false" in text
    else:
        assert "raise cluster.deadlines.step_seconds, which is 600" in text


def test_the_deadline_of_waiting_for_data_is_the_setting():
    detector, now = after_steps(*[1.0] * 20, deadlines=LONG)
    detector.on_progress(0, Position("step", 21), now)
    assert hung(detector, now + 600) is None
    text = hung(detector, now + 601)
    assert text.startswith("Rank 1 on node b hangs: it has been in phase data of step 21 for 601 s")
    assert "raise cluster.deadlines.step_seconds, which is 600" in text


def test_the_deadline_of_a_step_counts_from_when_the_last_rank_has_its_data():
    detector, now = after_steps(*[1.0] * 20, deadlines=LONG)
    detector.on_progress(0, Position("step", 21), now)
    detector.on_progress(1, Position("step", 21), now + 100.0)
    detector.on_progress(1, Position("save", 21), now + 101.0)
    assert hung(detector, now + 130.0) is None
    assert hung(detector, now + 131.0).startswith("Rank 0")


def test_a_recipe_can_turn_off_computed_deadlines():
    fixed = DeadlinesConfig(step_seconds=600, adaptive_step=False)
    detector, now = after_steps(*[1.0] * 20, deadlines=fixed)
    for rank in (0, 1):
        detector.on_progress(rank, Position("step", 21), now)
    assert hung(detector, now + 600) is None
    assert "raise cluster.deadlines.step_seconds" in hung(detector, now + 601)


def test_progress_of_one_rank_within_a_phase_does_not_excuse_the_other():
    detector = detector_at(Position("step", 7), Position("step", 7))
    for now in (3.0, 6.0, 9.0):
        detector.on_progress(0, Position("step", 7, f"window {now}"), now)
    assert hung(detector, 10.0) is None
    assert "Rank 1 on node b hangs: it has been in phase step of step 7" in hung(detector, 10.1)


def test_a_progress_report_ends_the_silence_of_a_rank():
    detector = detector_at(Position("step", 7), Position("step", 7))
    detector.on_answer(0, 2.0)
    assert detector.silent_seconds(0, 10.0) == 8.0
    detector.on_progress(0, Position("save", 7), 9.0)
    assert detector.silent_seconds(0, 10.0) == 1.0
    assert detector.silent_seconds(0, 8.5) == 0.0  # the report is newer than that time
    assert detector.silent_seconds(1, 10.0) == 10.0
