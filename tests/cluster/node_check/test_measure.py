"""Measure this machine: matrix products, compared with numpy's, and storage."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.node_check import matrix_product
from cluster.node_check.figures import ClockOffset, NodeFigures
from cluster.node_check.matrix_product import digest, matrix, multiply
from cluster.node_check.measure import measure_node, measure_storage

SIZE = 96


def measure_here(folder):
    return measure_node("cpu", 1, "quick", {"run folder": folder})


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_matrices_are_dense_and_their_product_equals_numpy_s():
    left, right = (matrix(SIZE, number) for number in (0, 1))
    assert not torch.equal(left, right)
    assert len(left.unique()) > 0.99 * SIZE**2
    assert -1 <= left.min() < -0.9 < 0.9 < left.max() <= 1
    exact = left.numpy().astype(np.float64) @ right.numpy().astype(np.float64)
    np.testing.assert_allclose(multiply(left, right).numpy(), exact, atol=1e-4)


def test_a_change_of_one_bit_changes_the_digest():
    product = multiply(matrix(SIZE, 0), matrix(SIZE, 1))
    before = digest(product)
    assert digest(multiply(matrix(SIZE, 0), matrix(SIZE, 1))) == before
    product[5, 7] = torch.nextafter(product[5, 7], torch.tensor(2.0))
    assert digest(product) != before


def test_a_product_that_is_wrong_once_is_not_repeatable(tmp_path, monkeypatch):
    calls = []

    def wrong_once(left, right):
        calls.append(1)
        product = multiply(left, right)
        if len(calls) == 3:
            product[0, 0] *= 2
        return product

    (product,) = measure_here(tmp_path).products
    assert product.repeatable
    monkeypatch.setattr(matrix_product, "multiply", wrong_once)
    (again,) = measure_here(tmp_path).products
    assert not again.repeatable
    assert (again.digest, again.kind) == (product.digest, product.kind)


def test_the_kind_of_a_cpu_includes_threads_and_kernel_settings(monkeypatch):
    kind, name = matrix_product.cpu_kind(2)
    assert "2 threads" in name
    assert matrix_product.cpu_kind(2)[0] == kind
    assert matrix_product.cpu_kind(3)[0] != kind
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert matrix_product.cpu_kind(2)[0] != kind


def test_a_node_is_measured_completely_and_no_file_is_left(tmp_path):
    figures = measure_here(tmp_path)
    assert figures.storage.keys() == {"run folder", "temporary folder"}
    assert all(storage.problem is None for storage in figures.storage.values())
    assert figures.storage["run folder"].free_bytes > 0
    assert list(tmp_path.iterdir()) == []
    assert figures.joined(NodeFigures()) == figures
    assert figures.joined(figures).products == figures.products * 2


def test_a_missing_storage_folder_is_measured_at_its_parent(tmp_path):
    assert measure_storage(tmp_path / "a" / "b").problem is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs /proc")
def test_storage_that_cannot_be_written_is_reported_as_a_problem():
    found = measure_storage(Path("/proc"))
    assert found.problem


def test_a_round_trip_gives_the_offset_of_a_clock_and_its_error():
    found = ClockOffset.of_round_trip(asked=10.0, node_time=70.1, answered=10.2)
    assert found.seconds == pytest.approx(60.0)
    assert found.error_seconds == pytest.approx(0.1)
    assert ClockOffset.of_round_trip(5.0, 5.0, 5.0) == ClockOffset(0.0, 0.0)
