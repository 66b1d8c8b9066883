"""Every task has one description, and all parts that it names exist."""

import re
from pathlib import Path

import pytest

from cluster.packages import PACKAGES
from data_pipeline.batching.task import DATA_TASKS, DataTask
from data_pipeline.config.data import BatchingConfig, DataConfig, TokenizerConfig
from foundation.registry import Registry, imported, resolved
from foundation.section import Section
from foundation.tasks import BUILT_IN_TASKS, DEFAULT_TASK, TASKS, TaskKind, TaskRegistry
from trainer.task_kinds import NETWORKS
from trainer.tasks.task import TrainingTask
from transloom.cli.app import app
from transloom.cli.explain import _PAGES
from transloom.cli.export import WRITERS, Target

ROOT = Path(__file__).resolve().parents[2]
# Names of tasks that are not also names of networks, files or fields.
NAMES = ("tlm", "sentence_embedding", "text_classification", "token_classification")


def test_the_default_task_is_translation():
    assert DEFAULT_TASK == "translation"
    assert DEFAULT_TASK in BUILT_IN_TASKS


@pytest.mark.parametrize("name", BUILT_IN_TASKS)
def test_all_parts_of_a_tasks_description_exist(name):
    kind = TASKS[name]
    assert isinstance(DATA_TASKS[name], DataTask)
    assert DATA_TASKS[name] is imported(kind.data_task)
    assert issubclass(imported(kind.training), TrainingTask)
    for given, base in (
        (kind.data, DataConfig),
        (kind.tokenizer, TokenizerConfig),
        (kind.batching, BatchingConfig),
        (kind.decoding, Section),
    ):
        assert issubclass(resolved(given), base)
    assert callable(resolved(kind.check))
    assert kind.network in NETWORKS
    assert kind.loss_unit != TaskKind.loss_unit
    assert kind.predicts != TaskKind.predicts
    assert kind.command in {c.name or c.callback.__name__ for c in app.registered_commands}
    assert kind.page in {None, "translation", *_PAGES}
    for target, writer in kind.exporters.items():
        assert target in set(Target)
        assert callable(imported(writer, WRITERS))


def test_registering_a_task_registers_its_data_task_if_it_has_one(monkeypatch):
    sides = Registry("task", "task")
    monkeypatch.setattr("foundation.tasks.DATA_TASKS", sides)
    tasks = TaskRegistry("task", "task")
    parts = {"data": "a:A", "tokenizer": "a:B", "batching": "a:C", "training": "a:D"}
    tasks.register("whole", TaskKind(**parts, network="n", scores={}, data_task="a:E"))
    tasks.register("half", TaskKind(**parts, network="n", scores={}))
    assert (list(tasks), list(sides)) == (["whole", "half"], ["whole"])


def test_no_other_file_contains_the_name_of_a_task():
    """Imports of a task's module and names of recipes are not counted."""
    named = re.compile(rf"(?<![\w.-])({'|'.join(NAMES)})\b")
    allowed = ("foundation/tasks.py", "data_pipeline/tasks/", "trainer/tasks/")
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    found = {
        str(path.relative_to(ROOT)): words
        for path in files
        if path.suffix in (".py", ".js", ".html", ".css", ".md")
        and (words := named.findall(path.read_text(encoding="utf-8")))
    }
    assert {name: words for name, words in found.items() if not name.startswith(allowed)} == {}
    assert "foundation/tasks.py" in found
