"""The example optimizer Lion: its algorithm, and exactness for all ranks and ZeRO stages."""

from functools import cache, partial
from types import SimpleNamespace

import lion
import pytest
import torch
import warm_up_stable_decay  # noqa: F401 (registers it)
from lion.update import Lion
from support.ranks import engine_jobs, lion_jobs
from support.ranks.engine_jobs import Shape, committed

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import RunMismatchError
from trainer.registries.optimizers import OptimizerConfig
from trainer.zero.settings import parameter_groups

pytestmark = pytest.mark.long

SETTINGS = {"lr": 0.003, "betas": (0.9, 0.98)}
LENGTH = 67  # four AVX-512 vectors of fp32 and three more elements
STEPS = 4
RANKS = (1, 2, 3)
SHAPES = [
    (ranks, Shape(stage, precision, numerics="exact"))
    for ranks in RANKS
    for stage, precision in [(s, "fp32") for s in range(4)] + [(s, "bf16") for s in (1, 2, 3)]
    if (ranks, stage, precision) != (3, 3, "bf16")  # refused for every optimizer
]
# Covers every number of ranks and every stage, with few combinations.
SHORT = [(1, 1), (1, 3), (2, 0), (2, 2), (3, 1), (3, 3)]


class PlainLion:
    """Algorithm 2 of the Lion paper, line by line; the moments are not changed in place."""

    def __init__(self, groups, betas):
        self.groups, (self.beta1, self.beta2) = groups, betas
        self.moments = {p: torch.zeros_like(p) for group in groups for p in group["params"]}

    @torch.no_grad()
    def step(self, rate):
        for group in self.groups:
            for theta in group["params"]:
                g, m = theta.grad, self.moments[theta]
                c = self.beta1 * m + (1 - self.beta1) * g
                theta.copy_(theta - rate * (c.sign() + group["weight_decay"] * theta))
                self.moments[theta] = self.beta2 * m + (1 - self.beta2) * g


def gradients(steps, length=LENGTH):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, length, generator=generator)


def updated(whole, cuts, steps, *, divisor=1.0, offset=0):
    """Return a vector and its moment after steps on parts at the given offset in memory."""

    def placed(part):
        room = torch.empty(len(part) + offset)
        return room[offset:].copy_(part)

    parameters = [torch.nn.Parameter(placed(part)) for part in whole.split(cuts)]
    optimizer = Lion([{"params": parameters, "weight_decay": 0.01}], **SETTINGS)
    optimizer.gradient_divisor = divisor
    for gradient in gradients(steps, len(whole)):
        for parameter, piece in zip(parameters, gradient.split(cuts), strict=True):
            parameter.grad = placed(piece)
        optimizer.step()
    moments = [optimizer.state[parameter]["exp_avg"] for parameter in parameters]
    return torch.cat([p.detach() for p in parameters]), torch.cat(moments)


def same(found, expected):
    return all(map(torch.equal, found, expected))


@pytest.mark.parametrize("divisor", [1.0, 3.7])
def test_updates_do_not_depend_on_cuts_and_memory_offsets(divisor):
    whole = torch.linspace(-2, 2, LENGTH)
    expected = updated(whole, [LENGTH], 5, divisor=divisor)
    for cut in range(1, LENGTH):
        for offset in (0, 1, 7, 16):
            cuts = [cut, LENGTH - cut]
            assert same(updated(whole, cuts, 5, divisor=divisor, offset=offset), expected), cut


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_updates_of_long_vectors_do_not_depend_on_the_number_of_threads(threads):
    whole = torch.linspace(-2, 2, 100_003)
    expected = updated(whole, [len(whole)], 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cut in (1, 32_768, 50_001, 100_000):
            assert same(updated(whole, [cut, len(whole) - cut], 2), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_equals_the_papers_algorithm(weight_decay):
    """Compare with the reference in fp64 for 50 steps."""
    ours = torch.nn.Parameter(torch.linspace(-2, 2, LENGTH))
    theirs = torch.nn.Parameter(torch.linspace(-2, 2, LENGTH, dtype=torch.float64))
    optimizer = Lion([{"params": [ours], "weight_decay": weight_decay}], **SETTINGS)
    reference = PlainLion([{"params": [theirs], "weight_decay": weight_decay}], SETTINGS["betas"])
    for gradient in gradients(50):
        ours.grad, theirs.grad = gradient.clone(), gradient.double()
        optimizer.step()
        reference.step(SETTINGS["lr"])
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - torch.linspace(-2, 2, LENGTH)).abs().mean() > 1e-2


def test_the_gradient_divisor_divides_the_gradient():
    """Only the second step is clipped, because a constant divisor does not change the updates."""
    divisors = [1.0, 30.0, 1.0]
    clipped, by_hand = (torch.nn.Parameter(torch.ones(LENGTH)) for _ in range(2))
    optimizers = [Lion([{"params": [p]}], **SETTINGS) for p in (clipped, by_hand)]
    for gradient, divisor in zip(gradients(3), divisors, strict=True):
        optimizers[0].gradient_divisor = divisor
        clipped.grad, by_hand.grad = gradient.clone(), gradient / divisor
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(clipped, by_hand)


def plain_losses(steps):
    """Return the losses of the same training without DeepSpeed."""
    model = engine_jobs.make_model()
    lion = PlainLion(parameter_groups(model, 0.01), (0.9, 0.98))
    step = partial(lion.step, engine_jobs.LEARNING_RATE)
    optimizer = SimpleNamespace(step=step, zero_grad=model.zero_grad)
    return engine_jobs.plain_loop(model, steps, optimizer=optimizer)[0]


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [
        (1, Shape(0)),
        (2, Shape(1)),
        (2, Shape(3)),
        (3, Shape(2)),
        (2, Shape(1, "bf16")),
        (2, Shape(2, "bf16")),
        (2, Shape(3, "bf16")),
    ],
    ids=str,
)
def test_every_stage_follows_the_plain_torch_loop(rank_pools, ranks, shape):
    losses, _, _ = rank_pools(ranks).run(lion_jobs.train, shape, STEPS)[0]
    tolerance = 1e-3 if shape.precision == "fp32" else 5e-2  # a last bit can change a sign
    assert losses == pytest.approx(plain_losses(STEPS), rel=tolerance)


@pytest.fixture(scope="module")
def trained(rank_pools, tmp_path_factory):
    """Return a function that trains with Lion and returns the losses and the checkpoint."""

    @cache
    def result(ranks, shape, steps):
        folder = tmp_path_factory.mktemp("checkpoints")
        results = rank_pools(ranks).run(lion_jobs.train_and_save, shape, steps, folder)
        assert all(losses == results[0][0] for losses, _ in results)
        return results[0][0], committed(folder, [saved for _, saved in results])

    return result


def state_of(path):
    reader = CheckpointReader(Checkpoint(path))
    return {name: reader.whole(*name) for name in reader.names}


def of_one_rank(trained, precision):
    losses, path = trained(1, Shape(1, precision, numerics="exact"), STEPS)
    return losses, state_of(path)


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [
        pytest.param(
            ranks,
            shape,
            marks=() if (ranks, shape.zero_stage) in SHORT else pytest.mark.chaos,
            id=f"{ranks}-ranks-stage-{shape.zero_stage}-{shape.precision}",
        )
        for ranks, shape in SHAPES
    ],
)
def test_losses_weights_and_moments_equal_those_of_one_rank_bit_for_bit(trained, ranks, shape):
    losses, path = trained(ranks, shape, STEPS)
    expected_losses, expected = of_one_rank(trained, shape.precision)
    state = state_of(path)
    assert losses == expected_losses
    assert {kind for kind, _ in state} == {"master", *lion.LionKind.moments}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_fast_numerics_depend_on_the_number_of_ranks(trained):
    """Otherwise the previous test would also pass with fast numerics."""
    one, three = (state_of(trained(ranks, Shape(1), STEPS)[1]) for ranks in (1, 3))
    assert any(not torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("stage", [1, pytest.param(0, marks=pytest.mark.chaos), 3])
def test_clipping_does_not_depend_on_the_number_of_ranks(rank_pools, stage):
    job = lion_jobs.train
    one = rank_pools(1).run(job, Shape(1, numerics="exact"), 2, 0.05)[0]
    three = rank_pools(3).run(job, Shape(stage, numerics="exact"), 2, 0.05)[0]
    assert three[0] == one[0]
    assert three[2] == one[2]
    assert min(one[2]) > 0.05
    assert all(torch.equal(three[1][name], one[1][name]) for name in one[1])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, Shape(1, numerics="exact")), (3, Shape(3, numerics="exact"))),
        ((3, Shape(2, numerics="exact")), (1, Shape(0, numerics="exact"))),
        ((2, Shape(3, "bf16", numerics="exact")), (1, Shape(1, "bf16", numerics="exact"))),
    ],
    ids=str,
)
def test_a_run_can_be_resumed_with_other_ranks_and_stages(rank_pools, trained, before, after):
    ranks, shape = after
    _, half = trained(*before, STEPS // 2)
    results = rank_pools(ranks).run(lion_jobs.resume, shape, half, STEPS)
    losses, state = of_one_rank(trained, shape.precision)
    for found, weights, loaded_exactly in results:
        assert loaded_exactly
        assert found == losses[STEPS // 2 :]
        for name, weight in weights.items():
            master = state["master", name].to(
                torch.bfloat16 if shape.precision == "bf16" else torch.float32
            )
            assert torch.equal(weight.flatten(), master.float())


def test_an_optimizer_option_that_lion_does_not_read_is_refused():
    OptimizerConfig(type="lion", betas=(0.9, 0.99), weight_decay=0.1)
    message = "optimizer type 'lion' does not read epsilon, which is 1e-06: remove it"
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(type="lion", epsilon=1e-6)


def test_a_resumed_run_with_lion_equals_an_uninterrupted_run(inline_runs):
    """The run uses two example extensions: the optimizer, and the schedule up to its decay."""
    overrides = [
        "trainer.optimizer={type: lion, betas: [0.9, 0.99]}",
        "trainer.schedule={type: warm_up_stable_decay}",
        "trainer.schedule.options={peak_learning_rate: 0.001, warmup_steps: 4, "
        "stable_until_step: 8, half_life_steps: 2}",
        "engine.numerics=exact",
        "trainer.ema_decay=0.9",
    ]
    runs = inline_runs
    runs.train("whole", *overrides, "trainer.max_steps=12", inline=True)
    runs.train("two", *overrides, "trainer.max_steps=6", inline=True)
    runs.train("two", *overrides, "trainer.max_steps=12", "engine.zero_stage=3", inline=True)
    assert runs.curve("two") == runs.curve("whole")
    rates = [line["learning_rate"] for line in runs.lines("whole")]
    assert rates[:4] == pytest.approx([0.00025, 0.0005, 0.00075, 0.001])
    assert rates[3:8] == [0.001] * 5
    assert rates[9] == 0.0005
    states = [
        state_of(runs.folder / name / "checkpoints/step-00000012") for name in ("two", "whole")
    ]
    assert {kind for kind, _ in states[0]} == {"master", "exp_avg", "ema"}
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with pytest.raises(RunMismatchError, match=r"optimizer\.type: 'lion' there, 'adamw' here"):
        runs.train("two", *overrides[1:], "trainer.max_steps=12", inline=True)
