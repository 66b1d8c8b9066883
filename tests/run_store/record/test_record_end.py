"""The end of a record: its newest steps, their speed, and the last events."""

import pytest
from support.records.lines import (
    COMPARED,
    COUNTED,
    corruption_found,
    rank_hung,
    skipped_line,
    train_line,
    validation_line,
    wrong_reduction,
)

from run_store.record.metrics_lines import Preempted, Resumed
from run_store.record.record_end import RecordEnd, read_record_end

MOST = 2**20


def written(folder, *lines, torn=""):
    path = folder / "metrics.jsonl"
    path.write_text("".join(f"{line.to_json()}\n" for line in lines) + torn)
    return path


def end_of(folder, *lines, most=MOST, **more):
    return read_record_end(written(folder, *lines, **more), most)


def steps(count, **fields):
    return [train_line(n, **fields) for n in range(1, count + 1)]


def test_a_missing_record_and_a_record_without_steps_have_an_empty_end(tmp_path):
    assert read_record_end(tmp_path / "metrics.jsonl", MOST) == RecordEnd()
    assert end_of(tmp_path) == RecordEnd()
    only = end_of(tmp_path, Preempted(step=0))
    assert (only.step, only.first_step, only.recent, only.world_size) == (0, None, (), None)


def test_a_last_line_without_a_line_end_is_not_read(tmp_path):
    end = end_of(tmp_path, *steps(2), torn=train_line(3).to_json())
    assert (end.step, end.problem) == (2, None)


def test_speed_is_unknown_after_one_step_and_known_after_two(tmp_path):
    one = end_of(tmp_path, *steps(1))
    assert (one.seconds_per_step, one.target_tokens_per_second) == (None, None)
    assert one.share_of_time("data_stall_seconds") is None
    two = end_of(tmp_path, *steps(2))
    assert (two.seconds_per_step, two.target_tokens_per_second) == (1.0, 10.0)


def test_speeds_that_overflow_are_unknown(tmp_path):
    lines = [train_line(n, **COUNTED, time=time) for n, time in ((1, 0.0), (2, 1e-300))]
    end = end_of(tmp_path, *lines)
    assert (end.target_tokens_per_second, end.flops_per_second, end.mfu) == (None, None, None)


def test_speed_is_measured_between_the_first_and_the_last_recent_step(tmp_path):
    """The first recent step only starts the period: its tokens and stalls do not count."""
    lines = [
        train_line(1, time=100.0, target_tokens=1000, data_stall_seconds=50.0),
        train_line(2, time=104.0, target_tokens=10, data_stall_seconds=1.0),
        skipped_line(3),
        train_line(4, time=108.0, target_tokens=30, checkpoint_stall_seconds=2.0),
    ]
    end = end_of(tmp_path, *lines)
    assert end.seconds_per_step == pytest.approx(8 / 3)
    assert end.target_tokens_per_second == 40 / 8
    assert end.share_of_time("data_stall_seconds") == 1 / 8
    assert end.share_of_time("checkpoint_stall_seconds") == 2 / 8
    assert end.in_a_row == 0


def test_mfu_is_averaged_over_the_time_between_the_recent_steps(tmp_path):
    lines = [
        train_line(1, **COUNTED, time=100.0),
        train_line(2, **COUNTED, time=101.0, step_seconds=0.5),
        train_line(3, **COUNTED | {"mfu": 0.1}, time=104.0, step_seconds=2.0),
    ]
    assert end_of(tmp_path, *lines).mfu == pytest.approx((0.4 * 0.5 + 0.1 * 2.0) / 4)


def test_a_share_of_time_is_at_most_one(tmp_path):
    lines = [train_line(n, time=100.0 + n, data_stall_seconds=9.0) for n in (1, 2)]
    assert end_of(tmp_path, *lines).share_of_time("data_stall_seconds") == 1.0


def test_speed_is_unknown_after_the_clock_was_set_back(tmp_path):
    lines = [train_line(n, time=100.0 - n) for n in (1, 2)]
    end = end_of(tmp_path, *lines)
    assert (end.seconds_per_step, end.target_tokens_per_second) == (None, None)
    assert end.share_of_time("data_stall_seconds") is None


def test_steps_skipped_in_a_row_at_the_end_are_counted(tmp_path):
    skipped = [skipped_line(2, in_a_row=1), skipped_line(3, in_a_row=2)]
    assert end_of(tmp_path, *steps(1), *skipped).in_a_row == 2
    end = end_of(tmp_path, *steps(1), *skipped, train_line(4))
    assert (end.step, end.skipped.step, end.in_a_row) == (4, 3, 0)


def test_all_validations_and_the_last_resume_are_kept(tmp_path):
    lines = [
        *(validation_line(1, loss=3.0), Resumed(step=1, from_step=0, restarts=1, lost_steps=1)),
        *(validation_line(2, loss=2.0), Resumed(step=2, from_step=1, restarts=2, lost_steps=4)),
    ]
    end = end_of(tmp_path, train_line(1), *lines)
    assert [line.step for line in end.validations] == [1, 2]
    assert (end.resumed.restarts, end.resumed.lost_steps) == (2, 4)


def test_only_whole_lines_of_the_last_bytes_are_read(tmp_path):
    lines = steps(50)
    last = sum(len(line.to_json()) + 1 for line in lines[-10:])
    for most, first in ((last, 42), (last + 1, 41), (last + 40, 41)):
        end = end_of(tmp_path, *lines, most=most)
        assert (end.first_step, end.step) == (first, 50)
    whole = end_of(tmp_path, *lines, most=written(tmp_path, *lines).stat().st_size)
    assert whole.first_step == 1


def test_a_damaged_line_is_reported_and_the_last_step_is_still_read(tmp_path):
    path = written(tmp_path, *steps(3))
    with path.open("a") as record:
        record.write('{"version": 2, "step": 4, "kind": "train"}\n')
    end = read_record_end(path, MOST)
    assert end.step == 3
    assert "metrics.jsonl" in end.problem


def test_slow_ranks_are_those_of_the_last_step_after_the_last_restart(tmp_path):
    slow = train_line(1, restarts=1, slow_ranks=COMPARED["slow_ranks"])
    again, restarted = Resumed(step=1, from_step=0, restarts=2), Resumed(step=0, from_step=0)
    for lines, expected in (
        ((), []),
        ((slow,), slow.slow_ranks),
        ((slow, train_line(2, restarts=1)), []),
        ((slow, again), []),
        ((slow, again, train_line(2, restarts=2, slow_ranks=slow.slow_ranks)), slow.slow_ranks),
        ((restarted, slow), slow.slow_ranks),
    ):
        assert end_of(tmp_path, *lines).slow_ranks == expected


def test_a_share_of_time_is_unknown_if_a_line_of_an_earlier_version_lacks_it(tmp_path):
    assert end_of(tmp_path, *steps(3)).share_of_time("wait_seconds") is None
    mixed = [*steps(2), train_line(3, wait_seconds=0.5)]
    assert end_of(tmp_path, *mixed).share_of_time("wait_seconds") is None
    assert end_of(tmp_path, *steps(3, wait_seconds=0.5)).share_of_time("wait_seconds") == 0.5


KINDS = (corruption_found, wrong_reduction)


@pytest.mark.parametrize(("older", "newer"), [KINDS, KINDS[::-1]])
def test_the_newest_corruption_event_of_either_kind_is_kept(tmp_path, older, newer):
    lines = [train_line(1), older(1), train_line(2), newer(2), train_line(3)]
    end = end_of(tmp_path, *lines)
    assert end.corruption == newer(2)


def test_the_newest_hang_event_is_kept(tmp_path):
    lines = [rank_hung(0), train_line(1), rank_hung(1), train_line(2)]
    assert end_of(tmp_path, *lines).hang == rank_hung(1)


def test_a_corruption_event_that_lacks_the_node_of_a_rank_is_damage(tmp_path):
    forged = corruption_found(2).model_copy(update={"nodes": ()})
    end = end_of(tmp_path, train_line(1), train_line(2), forged)
    assert "a node for each rank" in end.problem
