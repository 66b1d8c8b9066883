"""Slow ranks and their causes: compared with brute force, with noise, and in real runs."""

from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
from support.ranks import slow_jobs
from support.ranks.slow_jobs import Delay
from support.recipes import SHORT_TRANSLATIONS, tiny_values
from support.records.run_folders import opened_run

from cluster.recipe import Recipe
from data_pipeline.batching.plan import slots_of_rank
from foundation.terminal import Terminal
from run_store.record.metrics_file import read_metrics, train_lines
from run_store.record.metrics_lines import RankRecovered, SlowRankFound, SlowRankState, parse_line
from trainer.process.placement import Placement
from trainer.registries.callbacks import RankTimes
from trainer.training import step_exchange
from trainer.training.slow_ranks import (
    MAX_NAMED,
    NORMAL_FACTOR,
    SLOW_FACTOR,
    WINDOW,
    SlowRankDetector,
    SlowRanks,
    median_of_others,
    time_fields,
)
from transloom.cli.prepare import prepare_dataset
from transloom.observe.comparison.comparison import compare_runs


def times_of(compute, data=None, wait=0.0):
    compute = np.asarray(compute, float)
    data = np.zeros_like(compute) if data is None else np.asarray(data, float)
    return RankTimes(compute, np.full_like(compute, wait), data, compute)


def events_of(steps, detector=None):
    """Return the events of a detector after its first step, each with the number of its step."""
    if detector is None:
        detector = SlowRankDetector()
        detector.add(times_of(steps[0][0]), 0)
    found = []
    for number, (compute, data) in enumerate(steps, 1):
        found += detector.add(times_of(compute, data), number)
    return found


def by_brute_force(steps):
    """Return the same events, computed by definition from all steps so far."""
    found, slow = [], set()
    ratios = []
    for number, (compute, data) in enumerate(steps, 1):
        own = [c + d for c, d in zip(compute, data, strict=True)]
        ratios.append([t / median(own[:rank] + own[rank + 1 :]) for rank, t in enumerate(own)])
        if number < WINDOW:
            continue
        older, newer = (
            [median(row[rank] for row in part) for rank in range(len(own))]
            for part in (ratios[-WINDOW : -WINDOW // 2], ratios[-WINDOW // 2 :])
        )
        for rank in range(len(own)):
            if min(older[rank], newer[rank]) > SLOW_FACTOR and rank not in slow:
                slow.add(rank)
                found.append((number, "slow_rank", rank))
        for rank in sorted(slow):
            if max(older[rank], newer[rank]) < NORMAL_FACTOR:
                slow.remove(rank)
                found.append((number, "rank_recovered", rank))
    return found


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_the_median_of_the_others_excludes_the_rank(ranks):
    draw = np.random.default_rng(ranks)
    for _ in range(50):
        values = draw.integers(0, 4, ranks).astype(float)  # with ties
        expected = [median(np.delete(values, rank)) for rank in range(ranks)]
        assert median_of_others(values).tolist() == expected


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_slow_and_recovered_ranks_equal_those_of_brute_force(ranks):
    """Ranks become slow and normal at random, by compute or data time, with noise."""
    draw = np.random.default_rng(10 + ranks)
    steps = []
    factors, waits = np.ones(ranks), np.zeros(ranks)
    for step in range(1000):
        if step % 90 == 0:
            factors, waits = np.ones(ranks), np.zeros(ranks)
            rank = draw.integers(ranks)
            if draw.random() < 0.5:
                factors[rank] = draw.uniform(1.1, 2.5)
            else:
                waits[rank] = draw.uniform(0.0, 2.0)
        noise = draw.uniform(0.8, 1.2, (2, ranks))
        steps.append(((factors * noise[0]).tolist(), (waits * noise[1]).tolist()))
    found = [(event.step, event.event, event.rank) for event in events_of(steps)]
    assert found == by_brute_force(steps)
    assert {name for _, name, _ in found} == {"slow_rank", "rank_recovered"}


@pytest.mark.matrix
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_noise_of_a_fifth_raises_no_alarm(ranks):
    draw = np.random.default_rng(20 + ranks)
    steps = [(draw.uniform(0.8, 1.2, ranks), draw.exponential(0.02, ranks)) for _ in range(5000)]
    assert events_of(steps) == []


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("cause", ["compute", "data"])
def test_a_rank_that_takes_twice_the_time_is_named_within_the_window_with_its_cause(ranks, cause):
    draw = np.random.default_rng(30 + ranks)
    slow, first, last = ranks - 1, 201, 400
    steps = []
    for step in range(1, 601):
        compute, data = draw.uniform(0.8, 1.2, ranks), draw.exponential(0.02, ranks)
        if first <= step <= last:
            (compute if cause == "compute" else data)[slow] += 1.0
        steps.append((compute, data))
    found, recovered = events_of(steps)
    assert isinstance(found, SlowRankFound)
    assert isinstance(recovered, RankRecovered)
    assert (found.rank, recovered.rank, found.cause) == (slow, slow, cause)
    assert first + WINDOW // 2 < found.step < first + WINDOW
    assert last + WINDOW // 2 < recovered.step < last + WINDOW
    assert found.factor == pytest.approx(2.0, rel=0.1)
    assert found.seconds / found.other_seconds == pytest.approx(found.factor, rel=0.1)
    assert recovered.factor < NORMAL_FACTOR


def test_a_single_stalled_step_and_a_short_delay_raise_no_alarm():
    steps = [([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]) for _ in range(300)]
    steps[100] = ([1.0, 500.0, 1.0], [0.0, 0.0, 0.0])
    steps[200:225] = [([1.0, 1.0, 3.0], [0.0, 0.0, 0.0])] * 25
    assert events_of(steps) == []


def test_a_rank_near_the_limit_is_reported_once():
    steps = [([1.0, SLOW_FACTOR + 0.1 * (-1) ** (n // 60)], [0, 0]) for n in range(1000)]
    assert [event.event for event in events_of(steps)] == ["slow_rank"]


def test_all_ranks_of_a_slow_node_are_listed_slowest_first():
    """Three of seven ranks are slow, so the median of the others is that of normal ranks."""
    detector = SlowRankDetector(("a", "a", "a", "a", "b", "b", "b"))
    detector.add(times_of([1.0] * 7), 0)
    found = events_of([([1, 1, 1, 1, 2, 3, 2.5], [0] * 7)] * WINDOW, detector)
    assert [(event.rank, event.node) for event in found] == [(4, "b"), (5, "b"), (6, "b")]
    state = detector.slow_ranks
    assert [(one.rank, one.factor, one.node) for one in state] == [
        (5, 3.0, "b"),
        (6, 2.5, "b"),
        (4, 2.0, "b"),
    ]
    many = SlowRankDetector()
    many.add(times_of([1.0] * 41), 0)
    events_of([([1] * 21 + [2] * 20, [0] * 41)] * WINDOW, many)
    assert len(many.slow_ranks) == MAX_NAMED


def test_steps_that_are_left_out_are_not_compared():
    """Two of three steps follow a checkpoint, and are slow."""
    detector = SlowRankDetector()
    detector.add(times_of([1, 9]), 0)  # the first step of an attempt
    for step in range(6 * WINDOW):
        if step % 3:
            detector.skip_next_step()
        assert detector.add(times_of([1, 9 if step % 3 else 1]), step) == []
    assert detector.slow_ranks is None


@pytest.mark.parametrize("rank", [0, 1])
def test_the_observer_records_events_after_the_line_of_their_step(rank):
    """The first step and interrupted ones are not compared; skipped steps get no fields."""
    recorded = []
    recorder = SimpleNamespace(last_step=0, append=recorded.append)
    observer = SlowRanks(Placement(rank=rank, world_size=2), recorder)
    fields = []
    for step in range(1, 2 * WINDOW):
        times = times_of([1, 9])
        with observer.around(step):
            view = SimpleNamespace(
                rank_times=times,
                is_interrupted=step == 3,
                gradient_norm=None if step == 5 else 1.5,
            )
            fields.append(observer.after_step(view))
            recorder.last_step = step  # as if the line of the step was recorded
    if rank:
        assert (recorded, any(fields)) == ([], False)
        return
    (event,) = recorded
    assert (event.rank, event.step) == (1, WINDOW + 2)
    assert fields[4] == {}
    assert [step for step, one in enumerate(fields, 1) if one.get("slow_ranks")] == list(
        range(event.step + 1, 2 * WINDOW)
    )
    assert fields[0] == {**time_fields(times), "slow_ranks": None}


def test_steps_without_time_cause_no_event_and_no_error():
    assert events_of([([0.0, 0.0], [0.0, 0.0])] * WINDOW) == []
    assert time_fields(times_of([0.0, 0.0]))["compute_imbalance"] == 0.0
    fields = time_fields(times_of([0.25, 0.5, 0.75], [0.0, 0.125, 0.0625], wait=0.5))
    assert fields == {
        "compute_seconds_min": 0.25,
        "compute_seconds_median": 0.5,
        "compute_seconds_max": 0.75,
        "compute_slowest_rank": 2,
        "compute_imbalance": 0.333333,
        "data_stall_seconds_median": 0.0625,
        "data_stall_seconds_max": 0.125,
        "data_slowest_rank": 1,
        "wait_seconds": 0.5,
    }


@pytest.mark.parametrize(("ranks", "slots"), [(1, 3), (2, 5), (3, 4), (3, 6), (5, 12)])
@pytest.mark.parametrize("counted", [True, False])
def test_ranks_with_uneven_work_have_equal_times_for_the_mean_work(ranks, slots, counted):
    """With times proportional to work, all ranks need the same time for the mean work."""
    draw = np.random.default_rng(slots)
    rows = np.zeros((slots, step_exchange._SUMS + 2))
    positions = draw.integers(100, 1000, slots)
    rows[:, step_exchange._POSITIONS] = positions
    rows[:, step_exchange._COMPUTE] = positions / 1000
    if counted:  # operations, if counted, replace positions
        rows[:, step_exchange._POSITIONS] = 7
        rows[:, step_exchange._HARDWARE_FLOPS] = positions * 10**9
    for rank in range(ranks):
        first = slots_of_rank(rank, ranks, slots).start
        rows[first, [step_exchange._WAIT, step_exchange._DATA]] = rank + 1, rank + 2
    times = step_exchange._rank_times(rows, ranks)
    owned = [slots_of_rank(rank, ranks, slots) for rank in range(ranks)]
    assert times.compute == pytest.approx([positions[list(s)].sum() / 1000 for s in owned])
    assert times.equal_compute == pytest.approx([positions.sum() / 1000 / ranks] * ranks)
    assert times.wait.tolist() == list(range(1, ranks + 1))
    assert times.data.tolist() == list(range(2, ranks + 2))


RUN_WINDOW = 16
STEPS = 80
DELAYS = (Delay(1, "compute", 3.0, 12, 30), Delay(0, "data", 3.0, 44, 62))


@pytest.fixture(scope="module")
def runs(rank_pools, tmp_path_factory):
    """Return the folder of two runs of a recipe: on one rank, and on two with delays."""
    folder = tmp_path_factory.mktemp("slow")
    values = tiny_values(folder / "dataset", max_steps=STEPS)
    values["model"] |= {"width": 16, "feed_forward_width": 32, "heads": 2}
    values["batching"]["max_tokens_per_micro_batch"] = 48
    values["engine"]["numerics"] = "exact"
    values["decoding"] = SHORT_TRANSLATIONS
    recipe = Recipe.of(values)
    prepare_dataset(recipe, Terminal(stderr=True), overwrite=False)
    for ranks, delays in ((1, ()), (2, DELAYS)):
        run = opened_run(folder / str(ranks), recipe)
        rank_pools(ranks).run(slow_jobs.train_run, recipe.training(), run.path, delays, RUN_WINDOW)
    return folder


def lines_of(run):
    return train_lines(run / "metrics.jsonl")


@pytest.mark.long
@pytest.mark.parametrize("delay", DELAYS, ids=lambda delay: delay.cause)
def test_a_slow_rank_of_a_real_run_is_reported_and_recovers(runs, delay):
    """The ranks have three and two slots; a delay makes a pass three times as long."""
    events = [line for line in read_metrics(runs / "2" / "metrics.jsonl") if line.kind == "event"]
    found, recovered = [event for event in events if event.rank == delay.rank]
    assert isinstance(found, SlowRankFound)
    assert isinstance(recovered, RankRecovered)
    assert (found.cause, found.node) == (delay.cause, f"node-{delay.rank}")
    assert delay.first < found.step < delay.first + RUN_WINDOW
    assert delay.last < recovered.step < delay.last + RUN_WINDOW
    assert found.factor > SLOW_FACTOR
    lines = lines_of(runs / "2")
    slow = {line.step: [state.rank for state in line.slow_ranks or ()] for line in lines}
    named = [step for step, ranks in slow.items() if delay.rank in ranks]
    assert named == list(range(found.step + 1, recovered.step + 1))


@pytest.mark.long
def test_recorded_times_of_a_real_run_show_its_delays(runs):
    lines = lines_of(runs / "2")
    computing, fetching = (lines[d.first : d.last - 1] for d in DELAYS)
    assert median(line.compute_slowest_rank for line in computing) == 1
    assert min(line.compute_seconds_max for line in computing) > 2 * 3 * slow_jobs.USUAL_SECONDS
    assert median(line.wait_seconds for line in lines) < slow_jobs.USUAL_SECONDS  # not CPU time
    assert {line.data_slowest_rank for line in fetching} == {0}
    longer = DELAYS[1].seconds_of_step()
    assert min(line.data_stall_seconds_max for line in fetching) > longer
    for line in lines:
        assert line.compute_seconds_min <= line.compute_seconds_median <= line.compute_seconds_max


@pytest.mark.long
def test_a_run_on_one_rank_has_no_compared_times_and_the_same_curve(runs):
    lines = lines_of(runs / "1")
    assert len(lines) == STEPS
    ones = np.ones(1)
    compared = time_fields(RankTimes(ones, ones, ones, ones)).keys()
    assert {name for line in lines for name in line.model_fields_set} & compared == set()
    assert compare_runs(runs / "1", runs / "2").is_same


def test_slow_rank_events_are_read_back_as_written():
    state = SlowRankState(rank=3, node="node-2", cause="data", factor=1.875)
    for line in (
        SlowRankFound(step=7, **state.model_dump(), seconds=0.5, other_seconds=0.25),
        RankRecovered(step=8, rank=3, factor=1.0),
    ):
        assert parse_line(line.to_json().encode()) == line
