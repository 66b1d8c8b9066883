"""Real ranks of DeepSpeed compared with plain torch, without and with planted faults."""

import pytest
from support import zero_faults
from support.recipes import tiny_values, write_yaml

from cluster.recipe import load_recipe
from trainer.verify_zero.session import Session
from trainer.verify_zero.zero_grid import Cell, Work

pytestmark = pytest.mark.long

STEPS = 2


@pytest.fixture(scope="module")
def work(phrasebook, tmp_path_factory):
    path = write_yaml(tmp_path_factory.mktemp("recipe") / "tiny.yaml", tiny_values(phrasebook))
    recipe = load_recipe(path, ["engine.numerics=exact", "trainer.optimizer.weight_decay=0.01"])
    return Work(recipe.training(), STEPS, most_ranks=3)


@pytest.fixture(scope="module")
def session(work):
    return Session(work, "cpu", timeout_seconds=120)


@pytest.fixture(scope="module")
def reference(session):
    return session.reference()


@pytest.mark.parametrize(
    "cell",
    [
        Cell(1, 1),
        Cell(2, 0),
        Cell(2, 1, overlap_comm=True, offload=True),
        Cell(3, 2, small_buckets=True),  # some ranks have fewer of the five slots
        Cell(2, 3, overlap_comm=True, small_buckets=True, offload=True, hpz=True),
    ],
    ids=lambda cell: cell.text,
)
def test_deepspeed_computes_the_bits_of_plain_torch(session, reference, cell):
    verdict = session.verdict(cell, reference)
    assert verdict.outcome == "equal", verdict


@pytest.mark.parametrize(
    ("fault", "cell"),
    [
        (zero_faults.reduce_a_bucket_twice, Cell(2, 1, small_buckets=True)),
        (zero_faults.leave_out_a_reduction, Cell(2, 2, overlap_comm=True, small_buckets=True)),
        (zero_faults.lose_the_second_use_of_a_module, Cell(2, 3)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_gradient_is_detected_in_its_step(session, reference, fault, cell):
    verdict = session.verdict(cell, reference, fault)
    assert verdict.outcome == "different", verdict
    assert verdict.step == 1
    assert verdict.parameter in reference.digests[0]


def test_a_failed_and_a_hanging_cell_do_not_stop_the_next_cell(work, session, reference):
    failed = session.verdict(Cell(2, 1), reference, zero_faults.fail)
    assert failed.outcome == "error"
    assert failed.what in {f"rank {rank}: ValueError: planted" for rank in range(2)}
    hung = Session(work, "cpu", timeout_seconds=15).verdict(Cell(1, 0), reference, zero_faults.hang)
    assert (hung.outcome, hung.what) == ("hangs", "no result after 15 s")
    assert session.verdict(Cell(1, 0), reference).outcome == "equal"
