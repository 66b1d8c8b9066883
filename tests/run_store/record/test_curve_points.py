"""Points of records whose later steps have fields that earlier ones lack."""

import numpy as np
import pytest
from support.records.lines import COUNTED, train_line

from run_store.record.curve_points import Points


def test_a_missing_value_is_unknown_only_for_its_point():
    lines = [train_line(step, **COUNTED if step > 3 else {}) for step in range(1, 7)]
    columns = Points.of_lines(lines).columns()
    assert columns["tflops_per_second"] == [None, None, None, 8.0, 8.0, 8.0]
    merged = Points.of_lines(lines).merged(np.array([0, 0, 1, 1, 2, 2])).columns()
    assert merged["mfu"] == [None, None, pytest.approx(0.4)]
    assert None not in merged["loss"]
