"""The preflight with too little memory, and its absence of side effects with enough."""

from contextlib import closing
from functools import partial

import pytest
import torch
from support.ranks import engine_jobs, preflight_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.rank_pool import RankPool
from support.recipes import tiny_values
from support.tasks import EXTENSIONS

from data_pipeline.tasks.translation import PairShape
from trainer.process.host_memory import ALLOCATOR_ENVIRONMENT

MEGABYTE = 1_000_000
ALL_SHAPES = [Shape(stage) for stage in range(4)] + [Shape(stage, "bf16") for stage in (1, 2, 3)]
SMALL = [PairShape(2, 9, 8), PairShape(9, 2, 2)]
WIDE = [PairShape(8, 10, 10), PairShape(64, 40, 36)]
IN_A_STEP = [8, 8, 64, 64]  # two passes of each shape in WIDE
LARGE = [PairShape(8, 10, 10), PairShape(256, 100, 90)]  # takes more than 0.1 GB
BUDGET = 25600
ENOUGH = float("inf")


@pytest.fixture(scope="module")
def new_pool():
    """Return a pool of processes that have not allocated memory yet."""
    with closing(RankPool(2)) as pool:
        yield pool


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, marks=pytest.mark.chaos if shape.zero_stage == 1 else ())
        for shape in ALL_SHAPES
    ],
    ids=str,
)
def test_a_passed_preflight_does_not_change_training(rank_pools, shape):
    plain = rank_pools(2).run(engine_jobs.train, shape, 2)
    tried = rank_pools(2).run(preflight_jobs.train_after_preflight, shape, 2, SMALL)
    for (losses, weights), (expected_losses, expected, _) in zip(tried, plain, strict=True):
        assert losses == expected_losses
        assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_with_ample_memory_on_all_ranks_only_a_sixteenth_of_a_batch_is_tried(rank_pools):
    ample, scarce = 0.25, 0.0
    rows = rank_pools(2).run(preflight_jobs.rows_tried, WIDE, [ample, ample])
    assert rows == [[1, 4]] * 2
    rows = rank_pools(2).run(preflight_jobs.rows_tried, WIDE, [ample, scarce])
    assert rows[0] == [1, 4, *IN_A_STEP], "with the other rank, in whose step is a collective"
    assert rows[1] == [1, *(2, 4, 8), *(16, 32, 64), *IN_A_STEP]


@pytest.mark.parametrize("stage", [1, 3])
def test_a_small_built_in_network_is_tried_only_if_memory_is_scarce(rank_pools, phrasebook, stage):
    values = tiny_values(phrasebook) | {"engine": {"zero_stage": stage}}
    values["batching"]["max_tokens_per_micro_batch"] = 2048
    ample, scarce = 10**12, 400 * MEGABYTE
    run = partial(rank_pools(2).run, preflight_jobs.passes_before_step_one)
    assert run(values, [ample, ample]) == [0, 0]
    assert all(passes > 0 for passes in run(values, [ample, scarce])), "together"


def test_r_drop_needs_memory_for_both_passes(rank_pools, phrasebook):
    """The network's activations take far more memory than its weights."""
    values = tiny_values(phrasebook)
    values["batching"]["max_tokens_per_micro_batch"] = 2048
    twice = values | {"trainer": values["trainer"] | {"r_drop": 1.0}}
    with_one, with_two = (ample_bytes(rank_pools(1), each) for each in (values, twice))
    assert with_two == pytest.approx(2 * with_one, rel=0.4)


def ample_bytes(pool, values):
    """Return about the least host memory with which a run is not tried."""
    low, high = 10 * MEGABYTE, 10_000 * MEGABYTE
    while high > 1.2 * low:
        middle = int((low * high) ** 0.5)
        (passes,) = pool.run(preflight_jobs.passes_before_step_one, values, [middle])
        low, high = (middle, high) if passes else (low, middle)
    return high


def test_a_network_with_extensions_is_always_tried(rank_pools, phrasebook):
    extensions = {"extensions": ["z_loss"], "extension_folder": str(EXTENSIONS)}
    values = tiny_values(phrasebook) | extensions
    (passes,) = rank_pools(1).run(preflight_jobs.passes_before_step_one, values, [10**12])
    assert passes > 0


@pytest.mark.parametrize("shape", ALL_SHAPES, ids=str)
def test_a_rank_without_memory_stops_all_ranks_and_says_what_would_fit(rank_pools, shape):
    """One rank has memory for 36 × 17 target tokens, hence for a quarter of 64 rows."""
    most_tokens = [ENOUGH, 36 * 17]
    messages = rank_pools(2).run(preflight_jobs.shortage, shape, WIDE, 2560, most_tokens)
    assert messages[0] == messages[1]
    what, remedies = messages[0].split(" left for this rank. To free memory, ")
    assert what.startswith(
        "Rank 1 of 2 cannot fit forward and backward of a micro-batch of 64 × (40 source + 36 "
        "target) tokens, which batching.max_tokens_per_micro_batch = 2560 allows, into memory; "
        "its host had "
    )
    higher = f"raise engine.zero_stage above {shape.zero_stage}"
    more = "use more ranks (cluster.ranks)"
    kept = "set engine.activation_checkpointing=true"
    ways = {0: [higher], 3: [more]}.get(shape.zero_stage, [higher, more])
    assert remedies == (
        f"{' or '.join([*ways, kept])}; this does not change the run; "
        "batching.max_tokens_per_micro_batch=640 would fit too, but requires a new run"
    )


def test_a_shortage_for_the_smallest_batch_is_reported(rank_pools):
    message, _ = rank_pools(2).run(preflight_jobs.shortage, Shape(1), WIDE, 2560, [10, 10])
    assert message.startswith("Ranks 0, 1 of 2 cannot fit")
    assert message.endswith("down to one pair were tried)")


def test_the_preflight_includes_memory_that_deepspeed_allocates_in_a_step(new_pool):
    """DeepSpeed's gradient bucket takes 2 GB here, which forward and backward do not need."""
    spare = [500 * MEGABYTE] * 2
    elements = 500_000_000
    messages = new_pool.run(preflight_jobs.shortage_of_bucket, Shape(2), SMALL, 20, spare, elements)
    for rank, message in enumerate(messages):
        assert message.startswith(
            f"Rank {rank} cannot fit 2 × (9 source + 8 target) tokens in a step into memory; its "
            "host had"
        )
        assert "raise engine.zero_stage above 2 or use more ranks" in message
        assert "can't allocate memory: you tried to allocate 2000000000 bytes" in message


def test_an_actual_lack_of_memory_is_reported():
    # Much more than what a process may have allocated before and not used.
    widest = [PairShape(4096, 100, 90)]
    with closing(RankPool(1)) as pool:
        (message,) = pool.run(
            preflight_jobs.shortage_of_addresses, Shape(1), widest, 16 * BUDGET, [160 * MEGABYTE]
        )
    assert message.startswith("Rank 0 of 1 cannot fit")


@pytest.mark.long
def test_memory_of_a_failed_try_does_not_count_in_the_next_try(monkeypatch):
    for name, value in ALLOCATOR_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    widest = [PairShape(1024, 100, 90)]
    with closing(RankPool(1, "spawn")) as pool:
        (message,) = pool.run(preflight_jobs.shortage_of_host, widest, 4 * BUDGET, 300 * MEGABYTE)
    assert message.startswith("Rank 0 of 1 cannot fit")
    assert "would fit too" in message


@pytest.mark.long
def test_a_batch_that_would_exceed_the_hosts_memory_is_not_tried(rank_pools):
    pool = rank_pools(1)
    (message,) = pool.run(preflight_jobs.shortage_of_host, LARGE, BUDGET, 100 * MEGABYTE)
    assert message.startswith("Rank 0 of 1 cannot fit")
    assert "its host had 0.1 GB left for this rank" in message
    (message,) = pool.run(preflight_jobs.shortage_of_host, LARGE, BUDGET, 100_000 * MEGABYTE)
    assert message == ""
