"""Load of a node: the part of its cores, memory and GPUs that the run may use."""

from types import SimpleNamespace

import psutil
import pytest

from cluster.health.cgroup import CoreLimit, MemoryLimit
from cluster.ranks import node_meter
from cluster.ranks.node_meter import NodeMeter, gpus_of_node, memory_of_node
from cluster.ray import private


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that a test moves, and cores that were busy for `clock.busy` seconds."""
    clock = SimpleNamespace(now=100.0, busy=5.0)

    def sleep(seconds):
        clock.now += seconds
        clock.busy += seconds

    monkeypatch.setattr(
        node_meter, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )
    monkeypatch.setattr(node_meter, "cpus_of_node", lambda: CoreLimit(4, lambda: clock.busy))
    return clock


def test_cpu_use_is_measured_between_samples(clock):
    meter = NodeMeter()
    assert meter.sample().cpu_percent == 25  # one of four cores, during the first sample
    clock.now, clock.busy = 200.0, 305.5
    assert meter.sample().cpu_percent == pytest.approx(75, abs=1)
    assert meter.sample().cpu_percent == 0  # no time has passed
    clock.now, clock.busy = 210.0, 1e6
    assert meter.sample().cpu_percent == 100
    clock.now, clock.busy = 220.0, 0.0
    assert meter.sample().cpu_percent == 0


def test_a_sample_of_this_machine_has_plausible_values():
    usage = NodeMeter().sample()
    assert 0 <= usage.cpu_percent <= 100
    assert 0 < usage.memory_used_bytes <= usage.memory_bytes <= psutil.virtual_memory().total


def test_a_container_s_limits_apply_if_they_are_below_the_machine_s(monkeypatch):
    total = psutil.virtual_memory().total
    for limit, expected in ((MemoryLimit(total // 2, 7), 7), (MemoryLimit(2**62, 7), None)):
        monkeypatch.setattr(node_meter, "memory_limit", lambda limit=limit: limit)
        used, there = memory_of_node()
        assert there == (limit.limit_bytes if expected else total)
        assert not expected or used == expected
    for cores in (0.5, 2**10):
        limit = CoreLimit(cores, lambda: 0.0)
        monkeypatch.setattr(node_meter, "core_limit", lambda limit=limit: limit)
        assert (node_meter.cpus_of_node() is limit) == (cores == 0.5)


class Driver:
    """NVIDIA's library on a machine with two GPUs; `nvmlInit` raises an error with `reason`, if
    set.
    """

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, reason=None):
        self.reason = reason
        self.open = 0

    def nvmlInit(self):  # noqa: N802
        if self.reason:
            raise self.NVMLError(self.reason)
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, device):  # noqa: N802
        return SimpleNamespace(used=device, total=10)

    def nvmlDeviceGetUtilizationRates(self, device):  # noqa: N802
        return SimpleNamespace(gpu=50 + device, memory=3)


def test_gpus_are_those_that_the_driver_lists(tmp_path, monkeypatch):
    control = tmp_path / "nvidiactl"
    driver = Driver()
    monkeypatch.setattr(private, "nvml", lambda: driver)
    assert gpus_of_node(control) == []  # without a driver, the library is not called
    control.touch()
    assert [(gpu.index, gpu.utilization_percent) for gpu in gpus_of_node(control)] == [
        (0, 50),
        (1, 51),
    ]
    assert driver.open == 0
    driver.reason = "Driver/library version mismatch"
    assert gpus_of_node(control) == []


def test_ray_contains_nvidia_s_library():
    """The library has all names that `Driver` defines, which are those that `node_meter` uses."""
    library = private.nvml()
    names = {name for name in vars(Driver) if not name.startswith("_")}
    assert names
    assert names <= set(dir(library))


def test_busy_time_includes_all_work_but_not_waiting_for_a_disk(monkeypatch):
    """Only the cores that this process may use count."""
    times = SimpleNamespace(
        user=1, nice=2, system=4, irq=8, softirq=16, steal=32, idle=64, iowait=128, guest=256
    )
    other = SimpleNamespace(**dict.fromkeys(vars(times), 1000))
    monkeypatch.setattr(node_meter.psutil, "cpu_times", lambda percpu: [other, times])
    monkeypatch.setattr(node_meter.os, "sched_getaffinity", lambda process: {1})
    monkeypatch.setattr(node_meter, "core_limit", lambda: None)
    cores = node_meter.cpus_of_node()
    assert (cores.cores, cores.busy_seconds()) == (1, 63)
    monkeypatch.setattr(node_meter.os, "sched_getaffinity", lambda process: {7})
    assert cores.busy_seconds() == 6063  # all listed cores, as a container may hide the process's
