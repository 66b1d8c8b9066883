"""Read the counters of GPUs from a fake of NVIDIA's library; no test runs on a GPU.

In a separate process, the real bindings load the fake, which has the real library's name.
"""

import json
import subprocess
from pathlib import Path

import pytest
import support.files
from support.command import run_python

from cluster.node_check.figures import GpuFigures
from cluster.node_check.gpu_counters import gpu_counters

SOURCE = Path(support.files.__file__).parent / "fake_nvml.c"
READ = """
import ctypes, json, sys
from dataclasses import asdict
from cluster.node_check.gpu_counters import gpu_counters
found = []
for uuid in json.loads(sys.argv[1]):
    with gpu_counters("GPU 3", uuid) as counters:
        found.append(counters and asdict(counters.figures()))
opened = ctypes.CDLL("libnvidia-ml.so.1").fake_open_count()
print(json.dumps([opened, found]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-std=gnu11", "-shared", "-fPIC", "-o", target, SOURCE], check=True)
    return folder


def read(uuids, library):
    folder = Path(__file__).parents[3]
    done = run_python(READ, json.dumps(uuids), cwd=folder, LD_LIBRARY_PATH=str(library))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_counters_of_each_gpu_are_read(library):
    """A GPU is found by its UUID, with or without the prefix `GPU-`."""
    opened, found = read(["sick", "GPU-well", "absent"], library)
    assert [counters and of_json(counters) for counters in found] == [
        GpuFigures("GPU 3", 3, failed_remapping=True, xid_errors=(48, 79)),
        GpuFigures("GPU 3", 0),
        None,
    ]
    assert opened == 0  # the library is closed as often as it is opened


def of_json(values):
    return GpuFigures(**values | {"xid_errors": tuple(values["xid_errors"])})


def test_without_nvidia_s_driver_there_are_no_counters():
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has NVIDIA's library")
    with gpu_counters("GPU 0", "absent") as counters:
        assert counters is None
