"""Limits of a container or Slurm job, from files in the kernel's format."""

from pathlib import Path

import pytest

from cluster.health.cgroup import core_limit, memory_limit

GB = 2**30


def group(path: Path, **files: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text + "\n")


def version_2(path: Path, memory: str, cpu: str, used: int = 3 * GB, busy: float = 7.5) -> None:
    group(
        path,
        memory__max=memory,
        memory__current=str(used),
        memory__stat=f"anon 5\nactive_file {GB // 2}\ninactive_file {GB // 2}",
        cpu__max=cpu,
        cpu__stat=f"usage_usec {int(busy * 1e6)}\nuser_usec 1",
    )


def version_1(mounted: Path, path: str, memory: int, quota: int) -> None:
    group(
        mounted / "memory" / path,
        memory__limit_in_bytes=str(memory),
        memory__usage_in_bytes=str(3 * GB),
        memory__stat=f"active_file 1\ntotal_active_file {GB}\ntotal_inactive_file {GB}",
    )
    group(mounted / "cpu" / path, cpu__cfs_quota_us=str(quota), cpu__cfs_period_us="100000")
    group(mounted / "cpuacct" / path, cpuacct__usage=str(int(7.5e9)))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "cgroup-of-process"


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    (tmp_path / "mounted").mkdir()
    return tmp_path / "mounted"


def test_the_lowest_limit_of_nested_groups_applies(mounted: Path, own: Path) -> None:
    own.write_text("0::/job/step/task\n")
    version_2(mounted / "job", str(8 * GB), "max 100000", used=5 * GB)
    version_2(mounted / "job" / "step", "max", "150000 100000")
    version_2(mounted / "job" / "step" / "task", str(16 * GB), "400000 100000", busy=1)
    version_2(mounted / "another", str(GB), "1000 100000")
    memory, cores = memory_limit(mounted, own), core_limit(mounted, own)
    assert memory is not None
    assert (memory.limit_bytes, memory.used_bytes) == (8 * GB, 4 * GB)  # excludes cached files
    assert cores is not None
    assert (cores.cores, cores.busy_seconds()) == (1.5, 7.5)


@pytest.mark.parametrize("path", ["/job/step", "/not/seen/from/within"])
def test_a_hidden_group_has_the_limits_of_the_root(mounted: Path, own: Path, path: str) -> None:
    own.write_text(f"0::{path}\n")
    version_2(mounted, str(8 * GB), "50000 100000")
    memory, cores = memory_limit(mounted, own), core_limit(mounted, own)
    assert memory is not None
    assert memory.limit_bytes == 8 * GB
    assert cores is not None
    assert cores.cores == 0.5


def test_cgroup_version_1_has_a_tree_for_each_controller(mounted: Path, own: Path) -> None:
    own.write_text("4:memory:/docker/x\n2:cpuacct:/\n1:cpu,cpuacct:/docker/x\n0::/\n")
    version_1(mounted, "", 2**63 - 4096, -1)
    version_1(mounted, "docker/x", 4 * GB, 250_000)
    memory, cores = memory_limit(mounted, own), core_limit(mounted, own)
    assert memory is not None
    assert (memory.limit_bytes, memory.used_bytes) == (4 * GB, GB)
    assert cores is not None
    assert (cores.cores, cores.busy_seconds()) == (2.5, 7.5)


@pytest.mark.parametrize("text", [None, "", "0::/\n", "0::/../../..\n", "1:cpu:/x\n"])
def test_missing_files_or_limits_give_no_limit(mounted: Path, own: Path, text: str | None) -> None:
    if text is not None:
        own.write_text(text)
    assert memory_limit(mounted, own) is None
    assert core_limit(mounted, own) is None
    version_2(mounted, "max", "max 100000")
    assert memory_limit(mounted, own) is None
    assert core_limit(mounted, own) is None
    version_2(mounted, "much", "some 100000")
    assert memory_limit(mounted, own) is None
    assert core_limit(mounted, own) is None
