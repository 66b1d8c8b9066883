"""Parts of the dashboard without a server: rows, page files, ports, tails, subscribers."""

import asyncio
import socket

import pytest
from support.records.lines import train_line
from support.records.run_folders import made_run, with_checkpoint, with_status

from cluster.errors import ClusterError
from run_store.errors import RunMismatchError
from trainer.task_kinds import TASKS, TaskKind
from transloom.observe.dashboard import page_subscribers
from transloom.observe.dashboard.follower import FASTEST_SECONDS, Tail
from transloom.observe.dashboard.page_subscribers import PageSubscriber
from transloom.observe.dashboard.run_responses import row_of
from transloom.observe.dashboard.runs_folder import RunsFolder
from transloom.observe.dashboard.serving import PORT
from transloom.observe.dashboard.table import RunsTable
from transloom.web.auth import PageGuard, is_loopback
from transloom.web.listening import listen
from transloom.web.page_files import INDEX, _collect, page_files

# --- units of the loss


@pytest.mark.parametrize(
    ("recipe", "unit"),
    [
        ("seed: 1", "target token"),  # an old recipe without a task
        ("task: masked_lm", "masked token"),
        ("task: sentence_embedding", "sentence pair"),
        ("task: of_an_extension", None),
        ("task: [translation]", None),
    ],
)
def test_a_row_names_the_unit_of_its_loss(tmp_path, recipe, unit):
    run = made_run(tmp_path / "run")
    (run / "recipe.yaml").write_text(recipe)
    assert row_of(with_status(run)).standing.loss_unit == unit


def test_every_built_in_task_has_a_loss_unit():
    own = [name for name in TASKS if TASKS[name].training.startswith("trainer.")]
    assert len(own) > 6
    assert [name for name in own if TASKS[name].loss_unit == TaskKind.loss_unit] == []


# --- untrusted recipes

BILLION_LAUGHS = "a: &a [x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BILLION_LAUGHS, "alias"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper"),
        ("a: [" + "1," * 110_000 + "]", "more than 100,000 values"),
        ("[1, 2]", "expected a table"),
        ("a: b: c", "not YAML"),
        ("a: !!python/object/apply:os.system [true]", "not YAML"),
        ("x" * 2_100_000, "expected at most 2,000,000"),
    ],
    ids=["laughs", "deep", "many", "list", "broken", "code", "large"],
)
def test_an_invalid_recipe_is_reported_in_its_row(tmp_path, text, why):
    run = made_run(tmp_path / "run", train_line(1))
    (run / "recipe.yaml").write_text(text)
    standing = row_of(with_status(run)).standing
    assert standing.settings == {}
    assert any(why in problem and "recipe.yaml" in problem for problem in standing.problems)


# --- the table of runs


def test_a_row_needs_only_the_status_the_owners_and_the_metadata(tmp_path):
    run = with_checkpoint(made_run(tmp_path / "run", train_line(1)), 1)
    row = row_of(run)
    for path in run.iterdir():
        if path.name not in ("status.json", "owners", "run.json"):
            path.rename(tmp_path / path.name)
    assert row_of(run) == row


def test_refresh_returns_only_new_and_changed_rows(tmp_path):
    for name in ("a", "b"):
        made_run(tmp_path / name, train_line(1))
    table = RunsTable(RunsFolder(tmp_path))
    assert [row.id for row in table.refresh()] == ["a", "b"]
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write(train_line(2).to_json() + "\n")
    with_status(tmp_path / "b")
    table.answer()  # an answer to one page must not hide the change from others
    assert [(row.id, row.standing.step) for row in table.refresh()] == [("b", 2)]
    (tmp_path / "a" / "recipe.yaml").write_text("trainer:\n  max_steps: 30\n")
    with_status(tmp_path / "a")
    assert [row.standing.settings for row in table.refresh()] == [{"trainer.max_steps": 30}]
    made_run(tmp_path / "c", train_line(1))
    (tmp_path / "a").rename(tmp_path / "d")
    assert [row.id for row in table.refresh()] == ["c", "d"]
    assert list(table.paths) == ["b", "c", "d"]
    made_run(tmp_path / "e", train_line(1))
    table.answer()
    (tmp_path / "e").rename(tmp_path.parent / "e")
    assert table.refresh() == []


def test_the_first_answer_contains_all_rows(tmp_path):
    made_run(tmp_path / "a", train_line(1))
    table = RunsTable(RunsFolder(tmp_path))
    assert [row.id for row in table.answer().runs] == ["a"]
    assert table.refresh() == []


def test_the_folder_of_a_single_run_lists_this_run(tmp_path):
    run = made_run(tmp_path / "run", train_line(1))
    found, problems = RunsFolder(run).list_runs()
    assert (found, problems) == ({"run": run}, [])
    for none in (tmp_path / "none", run / "run.json"):
        with pytest.raises(RunMismatchError, match="Name the folder that holds your runs"):
            RunsFolder(none)


# --- the page's files


def test_page_files_are_collected_with_content_types_without_python_files(tmp_path):
    (tmp_path / "vendor").mkdir()
    for name in (INDEX, "a.js", "b.css", "c.svg", "vendor/LICENSE", "vendor/d.mjs", ".hidden"):
        (tmp_path / name).write_text(name)
    (tmp_path / "__init__.py").write_text("")
    found: dict = {}
    _collect(tmp_path, "", found)
    assert {name: file.content_type for name, file in found.items()} == {
        INDEX: "text/html",
        "a.js": "text/javascript",
        "b.css": "text/css",
        "c.svg": "image/svg+xml",
        "vendor/LICENSE": "text/plain",
        "vendor/d.mjs": "text/javascript",
    }
    assert all(file.content == name.encode() for name, file in found.items())
    assert not any(name.endswith(".py") for name in page_files("transloom.observe.dashboard"))


# --- ports and addresses


def test_listen_uses_the_next_free_port_and_reports_it():
    said = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listen("the dashboard", "127.0.0.1", None, port, said.append) as found:
            assert found.getsockname()[1] > port
        assert f"Port {port} is taken" in said[0]
        with pytest.raises(ClusterError, match=f"port {port}: .*Choose another --port"):
            listen("the dashboard", "127.0.0.1", port, PORT, said.append)
    with pytest.raises(ClusterError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("the dashboard", "192.0.2.1", None, PORT, said.append)
    assert PORT > 1024


def test_loopback_addresses_are_recognised():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))
    assert len({PageGuard(1).token for _ in range(3)}) == 3
    assert len(PageGuard(1).token) >= 43  # 256 bits


# --- following records


def test_the_poll_interval_is_shorter_than_a_step_within_limits(tmp_path):
    def wait_seconds(step_seconds):
        tail = Tail(tmp_path)
        tail.step_seconds = step_seconds
        return tail.wait_seconds

    for seconds in (0.3, 1.0, 3.0):
        assert wait_seconds(seconds) < seconds
    assert wait_seconds(1e-6) == FASTEST_SECONDS
    assert wait_seconds(3600) <= 2


def test_a_tail_reads_lines_after_its_position(tmp_path):
    record = made_run(tmp_path / "run", train_line(1), train_line(2)).joinpath("metrics.jsonl")
    at = len(train_line(1).to_json()) + 1
    lines, is_other = Tail(record, position=at).read()
    assert ([line.step for line in lines.train], is_other) == ([2], False)
    assert Tail(record).read()[0].train == []  # pages request existing lines separately
    none = Tail(tmp_path / "later.jsonl")
    assert none.read()[0].train == []
    record.rename(tmp_path / "later.jsonl")
    assert [line.step for line in none.read()[0].train] == [1, 2]


def test_a_tail_returns_many_lines_in_several_reads(tmp_path):
    record = made_run(tmp_path / "run", *map(train_line, range(1, 1_001))) / "metrics.jsonl"
    tail, found = Tail(record, position=0), []
    while lines := tail.read()[0].train:
        assert len(lines) < 800
        found += [line.step for line in lines]
    assert found == list(range(1, 1_001))


def test_a_page_that_does_not_read_its_messages_is_disconnected(monkeypatch):
    monkeypatch.setattr(page_subscribers, "MAX_WAITING_BYTES", 10)

    async def scenario():
        page = PageSubscriber()
        assert await page.take(0) == b""
        page.put(b"12345")
        page.put(b"67890")
        assert await page.take(60) == b"1234567890"
        page.put(b"x" * 10)
        assert not page.is_disconnected
        page.put(b"y")
        assert await page.take(60) is None
        page.put(b"z")
        assert not page._waiting

    asyncio.run(scenario())
