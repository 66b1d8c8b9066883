"""The table of the GPU check: its plan, its documentation, and the adopted results."""

import ast
import json

import pytest

from benchmarks.gpu_check.plan import RUN_BY_STAGES, STAGES
from benchmarks.gpu_check.results import Results, ResultsError, Row, read_results
from benchmarks.gpu_check.table import BEGIN, DOCS, END, KEPT, adopt, markdown
from benchmarks.support.environments import ROOT

GPU = {"versions": "torch 2.11.0", "driver": "H100, driver 580", "date": "2026-11-25"}
PASSED = Row("kernels", "rotary:fp32", "passed", 2e-7, "relative difference", **GPU)
FAILED = Row("kernels", "varlen_fa3", "failed", detail="a | b\n<c>", **GPU)


@pytest.fixture
def docs(tmp_path):
    path = tmp_path / "what-ran-where.md"
    path.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")
    return path


def results_of(tmp_path, *rows, device="cuda"):
    results = Results(device)
    results.add(rows)
    results.write(tmp_path / "results.json")
    return tmp_path / "results.json"


def line_of(docs, path):
    (line,) = [line for line in docs.read_text().splitlines() if f": {path} |" in line]
    return [cell.strip() for cell in line.replace(r"\|", "¦").split("|")[1:-1]]


def test_each_planned_row_has_a_function_in_its_stage():
    for stage in RUN_BY_STAGES:
        source = (ROOT / stage.module.replace(".", "/")).with_suffix(".py").read_text()
        functions = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
        keys = [row.key for row in stage.rows]
        assert {key.partition(":")[0] for key in keys} <= functions
        assert len(set(keys)) == len(keys)


def test_files_that_the_plan_names_exist():
    named = {row.where for stage in STAGES for row in stage.rows} - {"–"}
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_documentation_shows_the_adopted_results():
    kept = read_results(KEPT).rows if KEPT.exists() else {}
    _, _, rest = DOCS.read_text().partition(BEGIN)
    assert rest.partition(END)[0].strip() == markdown(kept).strip(), "run scripts/gpu_check adopt"


def test_adopted_rows_are_in_the_table_and_skipped_rows_keep_old_results(docs, tmp_path):
    kept = tmp_path / "kept.json"
    assert adopt(results_of(tmp_path, PASSED, FAILED), docs, kept) == 2
    assert line_of(docs, "rotary positions, fp32")[2:] == [
        "passed", "2e-07 relative difference", *GPU.values()
    ]  # fmt: skip
    assert line_of(docs, "`varlen_attn` by FlashAttention-3")[2:4] == ["failed", "a ¦ b &lt;c>"]
    assert line_of(docs, "rotary positions, bf16")[2:] == ["not run", "", "", "", ""]
    text = docs.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\n\nafter\n")
    assert "\nold\n" not in text

    better = Row("kernels", "varlen_fa3", "passed", **GPU)
    lacking = Row("kernels", "rotary:fp32", "skipped", detail="no GPU", **GPU)
    assert adopt(results_of(tmp_path, better, lacking), docs, kept) == 1
    assert line_of(docs, "`varlen_attn` by FlashAttention-3")[2] == "passed"
    assert line_of(docs, "rotary positions, fp32")[2] == "passed", "of the first file"


def test_adopting_no_file_renders_the_table_again(docs, tmp_path):
    adopt(None, docs, tmp_path / "kept.json")
    assert line_of(docs, "rotary positions, fp32")[2] == "not run"
    assert not (tmp_path / "kept.json").exists()


def test_results_of_a_cpu_are_refused(docs, tmp_path):
    before = docs.read_text()
    file = results_of(tmp_path, PASSED, device="cpu")
    with pytest.raises(ResultsError, match=r"--device cpu.*scripts/gpu_check run"):
        adopt(file, docs, tmp_path / "kept.json")
    assert docs.read_text() == before


def test_rows_that_name_no_machine_are_not_adopted(docs, tmp_path):
    lost = Row("kernels", "rotary:fp32", "failed", detail="the stage did not start")
    assert adopt(results_of(tmp_path, lost), docs, tmp_path / "kept.json") == 0
    assert line_of(docs, "rotary positions, fp32")[2] == "not run"


def test_documentation_without_markers_is_refused(docs, tmp_path):
    docs.write_text("no table")
    with pytest.raises(ResultsError, match="gpu_check adopt writes"):
        adopt(results_of(tmp_path, PASSED), docs, tmp_path / "kept.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a results file"),
        (json.dumps({"format": 2}), "format 2, expected 1"),
        (json.dumps({"format": 1, "device": "tpu", "deviations": [], "rows": []}), "damaged"),
        (json.dumps({"format": 1, "device": "cuda", "deviations": [], "rows": [{}]}), "damaged"),
    ],
)
def test_an_invalid_results_file_is_refused(tmp_path, content, message):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ResultsError, match=message):
        read_results(file)
