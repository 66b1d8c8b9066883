"""Figures of this machine: products beside numpy's, the same bits in another process, storage."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cluster.node_check import matrix_product, measure
from cluster.node_check.clocks import RoundTrip, offset_of
from cluster.node_check.figures import ClockOffset, NodeCheckRequest, NodeFigures
from cluster.node_check.matrix_product import digest, matrix, multiply
from cluster.node_check.measure import measure_node, measure_storage

SIZE = 96


@pytest.fixture
def request_here(tmp_path):
    return NodeCheckRequest("quick", "cpu", 1, {"run folder": tmp_path})


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_matrices_are_dense_and_their_product_is_that_of_integers():
    left, right = (matrix(SIZE, number) for number in (0, 1))
    assert not torch.equal(left, right)
    assert len(left.unique()) > 0.99 * SIZE**2
    assert -1 <= left.min() < -0.9 < 0.9 < left.max() <= 1
    exact = left.numpy().astype(np.float64) @ right.numpy().astype(np.float64)
    np.testing.assert_allclose(multiply(left, right).numpy(), exact, atol=1e-4)


def test_one_bit_changes_the_digest():
    product = multiply(matrix(SIZE, 0), matrix(SIZE, 1))
    before = digest(product)
    assert digest(multiply(matrix(SIZE, 0), matrix(SIZE, 1))) == before
    product[5, 7] = torch.nextafter(product[5, 7], torch.tensor(2.0))
    assert digest(product) != before


def test_a_product_that_is_wrong_once_is_noticed(request_here, monkeypatch):
    calls = []

    def wrong_once(left, right):
        calls.append(1)
        product = multiply(left, right)
        if len(calls) == 3:
            product[0, 0] *= 2
        return product

    (product,) = measure_node(request_here).products
    assert product.repeatable
    monkeypatch.setattr(matrix_product, "multiply", wrong_once)
    (again,) = measure_node(request_here).products
    assert not again.repeatable
    assert (again.digest, again.kind) == (product.digest, product.kind)


def test_threads_and_kernel_settings_are_part_of_the_kind(monkeypatch):
    kind, name = matrix_product.cpu_kind(2)
    assert "2 threads" in name
    assert matrix_product.cpu_kind(2)[0] == kind
    assert matrix_product.cpu_kind(3)[0] != kind
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert matrix_product.cpu_kind(2)[0] != kind


def test_all_figures_of_a_node_are_measured_and_no_file_stays(request_here, tmp_path):
    figures = measure_node(request_here)
    assert figures.products[0].flops_per_second > 1e6
    assert figures.memory_bytes_per_second > 1e6
    assert figures.storage.keys() == {"run folder", "temporary folder"}
    assert all(storage.bytes_per_second > 1e3 for storage in figures.storage.values())
    assert min(figures.free_memory_bytes, figures.storage["run folder"].free_bytes) > 0
    assert list(tmp_path.iterdir()) == []
    only = measure_node(replace(request_here, gpu_only=True))
    assert only == NodeFigures(products=only.products)


@pytest.mark.parametrize(("seconds", "writes"), [(0.01, measure.LEAST_REPEATS), (60.0, 1)])
def test_storage_is_written_a_few_times_and_a_very_slow_one_once(
    tmp_path, monkeypatch, seconds, writes
):
    clock = SimpleNamespace(now=100.0)
    flushes = []

    def flush(descriptor):
        flushes.append(descriptor)
        clock.now += seconds

    monkeypatch.setattr(measure, "flush", flush)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(measure, "STORAGE_SECONDS", {"quick": 0.0})
    found = measure_storage(tmp_path, "quick")
    assert found.bytes_per_second == pytest.approx(measure.STORAGE_BYTES / seconds)
    assert len(flushes) == writes


def test_storage_that_does_not_exist_yet_is_that_of_its_parent(tmp_path):
    assert measure_storage(tmp_path / "a" / "b", "quick").problem is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs /proc")
def test_storage_that_cannot_be_written_has_a_problem():
    found = measure_storage(Path("/proc"), "quick")
    assert found.bytes_per_second is None
    assert found.problem


def test_the_shortest_round_trip_decides_about_a_clock():
    trips = [RoundTrip(0.0, 60.9, 1.0), RoundTrip(10.0, 70.1, 10.2), RoundTrip(20.0, 80.0, 21.0)]
    found = offset_of(trips)
    assert found.seconds == pytest.approx(60.0)
    assert found.error_seconds == pytest.approx(0.1)
    assert offset_of([RoundTrip(5.0, 5.0, 5.0)]) == ClockOffset(0.0, 0.0)
