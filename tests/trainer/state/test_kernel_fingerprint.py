"""Ranks that compute with different kernels are refused before their bits are compared."""

import json

import pytest
from support.command import run_python
from support.ranks import verify_jobs

from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.state.kernel_fingerprint import kernel_fingerprint

ENGINE = EngineConfig(numerics="exact", verify_every_steps=1)
INTEL = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143\nflags : fpu avx2 avx512f amx_tile\n"


def fingerprint(path, text):
    path.write_text(text)
    return kernel_fingerprint(ENGINE, Placement(), path)


def test_ranks_with_equal_kernels_are_accepted(rank_pools):
    assert rank_pools(3).run(verify_jobs.compare_kernels, {}) == [""] * 3


def test_a_rank_with_other_kernel_variables_is_refused_on_all_ranks(rank_pools):
    variables = {2: {"ONEDNN_MAX_CPU_ISA": "AVX2", "ONEDNN_VERBOSE": "0"}, 1: {"MKL_VERBOSE": "0"}}
    (said,) = set(rank_pools(3).run(verify_jobs.compare_kernels, variables))
    for part in (
        "rank 0 on node a and rank 2 on node c",
        "ONEDNN_MAX_CPU_ISA",
        "verify_every_steps to 0",
    ):
        assert part in said
    assert "VERBOSE" not in said


@pytest.mark.parametrize(
    ("before", "after"),
    [("GenuineIntel", "AuthenticAMD"), ("143", "106"), (" amx_tile", ""), ("avx512f", "")],
)
def test_another_processor_changes_the_fingerprint(tmp_path, before, after):
    one = fingerprint(tmp_path / "one", INTEL)
    other = fingerprint(tmp_path / "other", INTEL.replace(before, after))
    assert {name for name in one if one[name] != other[name]} == {"processor"}


def test_processor_flags_that_select_no_kernel_do_not_change_the_fingerprint(tmp_path):
    one = fingerprint(tmp_path / "one", INTEL)
    assert fingerprint(tmp_path / "two", INTEL.replace("fpu", "fpu rdtscp")) == one
    assert fingerprint(tmp_path / "three", INTEL + "\nvendor_id : another core\n") == one


@pytest.mark.long
def test_a_cpu_capability_set_for_torch_is_in_the_fingerprint():
    code = (
        "import json; from trainer.state.kernel_fingerprint import kernel_fingerprint as f;"
        "from trainer.config import EngineConfig as E;"
        "from trainer.process.placement import Placement;"
        "print(json.dumps(f(E(numerics='exact', verify_every_steps=1), Placement())))"
    )
    found = run_python(code, ATEN_CPU_CAPABILITY="default")
    other = json.loads(found.stdout)
    assert other["device"] != kernel_fingerprint(ENGINE, Placement())["device"]
    assert other["variables"]["ATEN_CPU_CAPABILITY"] == "default"
