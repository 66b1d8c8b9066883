"""The ledger of kernel launches: counts, detected waits, and reported differences."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.launches import steps, table
from benchmarks.launches.counter import LaunchCounter
from benchmarks.launches.gpu_branches import branches_of_a_gpu
from benchmarks.launches.steps import FORMS, ROWS, Row
from model.blocks import attention, dropout, feed_forward
from model.blocks.feed_forward import ACTIVATIONS, gelu_tanh

FAST = Row("translation", "bf16", 1, "fast")
KEY = f"{FAST}, passes"


def counted(function: Any) -> LaunchCounter:
    counter = LaunchCounter()
    with counter.part("exchange"):
        function()
    return counter


def test_views_and_operations_on_the_host_are_not_counted_as_launches():
    x = torch.ones(4, 4)
    assert counted(lambda: x.t().reshape(16)[2:].add(1)).launches.total() == 2  # copy, add
    counter = counted(lambda: float(x.sum().cpu().sqrt() + torch.tensor(2.0)))
    assert (counter.launches.total(), counter.waits.total()) == (1, 1)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([0.0, 0.0]).copy_(x),
    ],
)
def test_a_wait_is_recorded_with_the_line_that_reads_from_the_device(read):
    ((part, place),) = counted(lambda: read(torch.ones(2))).waits
    assert (part, place.file) == ("exchange", "tests/benchmarks/launches/test_ledger.py")
    assert place.line == read.__code__.co_firstlineno


class PlantedRead(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: torch.Tensor, *rest: Any) -> Any:
        source.nonzero()
        return self.network(source, *rest)


def test_a_read_from_the_device_is_found_on_the_meta_device():
    form = FORMS["translation"]
    place = steps.read_on_meta(form, PlantedRead(form.build()))
    assert place is not None
    assert (place.function, place.line) == (
        "forward",
        PlantedRead.forward.__code__.co_firstlineno + 1,
    )


def test_branches_of_a_gpu_are_patched_in_all_modules_and_restored():
    before = attention.zero_some
    with branches_of_a_gpu(weights=1.0, targets=1.0, vocabulary=1000):
        assert attention.zero_some is dropout.dropout is not before
        assert ACTIVATIONS["gelu_tanh"] is feed_forward.gelu_tanh is not gelu_tanh
    assert attention.zero_some is dropout.dropout is before
    assert ACTIVATIONS["gelu_tanh"] is feed_forward.gelu_tanh is gelu_tanh


def ledger(passes: int) -> dict[str, int]:
    return {f"{row}, passes": passes + 100 * (row.loop == "plain") for row in ROWS}


def test_a_count_above_its_budget_is_a_difference():
    old = table.renewed(ledger(900), [], table_of(), "first")
    assert list(table.problems(ledger(900), [], old)) == []
    higher = ledger(900) | {KEY: 918}
    assert list(table.problems(higher, [], old)) == [f"{KEY}: 900 → 918 (+18)"]
    assert table.renewed(higher, [], old)["budgets"][KEY] == 900
    raised = table.renewed(higher, [], old, "more layers")
    assert (raised["budgets"][KEY], raised["raised"][-1]) == (918, "more layers (+18)")


def test_an_unmet_rule_is_listed_until_it_is_met():
    old = table.renewed(ledger(3000), [], table_of(), "first")
    name = f"{FAST}: launches ≤ 1,950"
    assert old["unmet"][name] == "3000 > 1950"
    assert f"{name}: is met" in "\n".join(table.problems(ledger(1900), [], old))
    assert table.renewed(ledger(1900), [], old)["unmet"].keys() < old["unmet"].keys()
    lacking = {**old, "unmet": {}}
    assert f"{name}: 3000, expected at most 1950" in list(table.problems(ledger(3000), [], lacking))


def test_each_read_must_be_listed_and_each_listed_read_must_exist():
    form = FORMS["translation"]
    place = steps.read_on_meta(form, PlantedRead(form.build()))
    assert place is not None
    old = table.renewed(ledger(900), [place], table_of(), "first")
    assert list(table.problems(ledger(900), [place], old)) == []
    assert str(place) in "".join(table.problems(ledger(900), [place], {**old, "reads": []}))
    assert place.key in "".join(table.problems(ledger(900), [], old))


def table_of() -> dict[str, Any]:
    return {"budgets": {}, "unmet": {}, "reads": [], "raised": []}


def test_each_row_has_a_budget():
    budgets = table.load()["budgets"]
    assert all(any(key.startswith(f"{row}, ") for key in budgets) for row in ROWS)
