"""Both registries of tasks hold what the descriptions of the built-in tasks say."""

import pytest

from data_pipeline.batching.task import DATA_TASKS, DataTask
from foundation.built_in_tasks import BUILT_IN_TASKS, DEFAULT_TASK
from foundation.registry import imported
from trainer.task_kinds import TASKS
from trainer.tasks.task import TrainingTask


def test_no_built_in_task_is_registered_without_a_description():
    ours = {name for name in TASKS if TASKS[name].training.startswith("trainer.")}
    assert ours == set(BUILT_IN_TASKS)
    assert DEFAULT_TASK in BUILT_IN_TASKS


@pytest.mark.parametrize("name", BUILT_IN_TASKS)
def test_halves_of_a_task(name):
    described = BUILT_IN_TASKS[name]
    assert isinstance(imported(described.data), DataTask)
    assert issubclass(imported(described.training), TrainingTask)
    assert DATA_TASKS[name] is imported(described.data)
    assert TASKS[name].training == described.training
