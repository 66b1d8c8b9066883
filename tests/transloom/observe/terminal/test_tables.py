"""Tables keep values that users copy whole, in a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from cluster.launchers.ray_job.job_summary import JobSummary
from cluster.ray.jobs import Job
from transloom.cli.fields import field_rows, fields_table
from transloom.cli.jobs import jobs_table
from transloom.observe.terminal.tables import AnswerTable, Column

ID = "raysubmit_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RUN = "/a/folder/that/all/nodes/see/" + "/".join(["runs"] * 12) + "/phrasebook,seed=2"
MEANING = "A sentence of some length that has to go on in the next line of a narrow terminal."


def in_terminal(table: AnswerTable, width: int) -> str:
    output = io.StringIO()
    Console(file=output, width=width).print(table.laid_out(width), crop=False)
    return output.getvalue()


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_copied_values_are_whole_at_any_width(width: int) -> None:
    table = AnswerTable(Column("job", copied=True), "meaning", Column("run", copied=True))
    table.add(ID, MEANING, RUN)
    text = in_terminal(table, width)
    assert ID in text
    assert RUN in text
    assert all(word in text for word in MEANING.split())


def test_values_that_users_do_not_copy_fold_at_80_columns() -> None:
    table = AnswerTable(Column("job", copied=True), "meaning")
    table.add(ID, MEANING)
    assert max(map(len, in_terminal(table, 80).splitlines())) <= 80


def test_a_pipe_gets_a_line_with_tabs_for_each_row() -> None:
    table = AnswerTable(Column("job", copied=True, shown=4), "meaning")
    table.add(ID, "two\nlines")
    table.add("[b]x", "")
    assert table.plain() == f"job\tmeaning\n{ID}\ttwo lines\n[b]x\t"
    assert ID[:4] + " " in in_terminal(table, 80)
    assert "[b]x" in in_terminal(table, 80)


def test_job_ids_runs_and_field_names_are_whole_at_80_columns() -> None:
    empty = dict.fromkeys(Job.__dataclass_fields__)
    job = Job(**empty | {"id": ID, "status": "SUCCEEDED", "started": 0.0, "metadata": {"run": RUN}})
    rows = field_rows()
    jobs = jobs_table([JobSummary(job, None)])
    for text in (in_terminal(jobs, 80), jobs.plain()):
        assert ID in text
        assert RUN in text
    for text in (in_terminal(fields_table(rows), 80), fields_table(rows).plain()):
        assert [row["field"] for row in rows if row["field"] not in text] == []


def test_a_commands_table_in_a_pipe_has_tabs(transloom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    lines = transloom("fields", "cluster").stdout.splitlines()
    assert lines[0] == "field\tdefault\tchange\tmeaning"
    assert {line.count("\t") for line in lines} == {3}


def test_printing_a_table_lays_it_out_for_the_console() -> None:
    table = AnswerTable("test set", "BLEU")
    table.add("phrasebook", "98.9")
    output = io.StringIO()
    Console(file=output, width=80).print(table)
    assert output.getvalue() == in_terminal(table, 80)
