"""The cells of the grid, and the report of the command."""

import json

import pytest

from trainer.config import EngineConfig
from trainer.verify_zero.report import ZeroReport, report_text
from trainer.verify_zero.session import CellVerdict
from trainer.verify_zero.zero_grid import Cell, cells


def test_each_combination_of_settings_is_one_cell():
    found = list(cells([1, 2], [0, 1, 2, 3], "fp32", offload=True))
    assert len(set(found)) == len(found) == 2 * 1 + 2 * 2 * 8 + 8 + 16
    assert {cell.stage for cell in found if cell.hpz} == {3}
    assert {cell.ranks for cell in found if cell.hpz} == {2}
    assert not any(cell.offload for cell in cells([2], [1], "fp32", offload=False))


def test_bf16_has_only_cells_whose_sums_are_exact():
    found = list(cells([1, 2, 3, 4], [0, 1], "bf16", offload=False))
    assert {(cell.ranks, cell.stage) for cell in found} == {(1, 1), (2, 1), (4, 1)}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_bucket_sizes_are_accepted_by_deepspeed(ranks):
    zero = Cell(ranks, 2, small_buckets=True).settings(EngineConfig(), 4, 1001)["zero_optimization"]
    assert zero["reduce_bucket_size"] < 1001 / 8
    assert zero["allgather_bucket_size"] % (2 * ranks) == 0


def test_the_report_names_parameters_that_differ_and_errors():
    report = ZeroReport(
        {"deepspeed": "0.19.8", "torch": "2.9.0"},
        "cpu",
        "fp32",
        3,
        1000,
        [
            CellVerdict(Cell(1, 0), "equal", 1.0),
            CellVerdict(
                Cell(2, 3, hpz=True), "different", 1.0, 2, "norm.weight", "the master weights"
            ),
            CellVerdict(Cell(2, 1), "error", 1.0, what="rank 1: a | b"),
        ],
    )
    text = report_text(report)
    assert (
        "| 2 | 3 | no | one | no | yes | the master weights of norm.weight differ after step 2 |"
        in text
    )
    assert r"error: rank 1: a \| b" in text
    assert text.endswith("1 of 3 cells have the same bits as plain torch after every step.")
    assert json.loads(json.dumps(report.to_json()))["verdicts"][1]["cell"]["hpz"] is True
    assert not report.equal
