"""A task of one's own: lines of text are copied, although some of their tokens were hidden.

    extensions: [copy_task]
    task: copy

It is the smallest whole task, a file for each part: what data workers know (`data.py`), the network
(`network.py`), what ranks know (`training.py`). `recipe.yaml` trains it on the built-in phrase
book. Only this file is imported where nothing is computed, so it names the parts that need torch.
"""

from copy_task.data import COPY, CopyNetworkConfig
from data_pipeline.config.data import BatchingConfig
from data_pipeline.config.text import TextDataConfig, TextTokenizerConfig
from trainer.task_kinds import NETWORKS, TASKS, NetworkKind, TaskKind

NETWORKS.register("copy", NetworkKind(CopyNetworkConfig, "copy_task.network:build"))
TASKS.register(
    "copy",
    TaskKind(
        data=TextDataConfig,
        tokenizer=TextTokenizerConfig,
        batching=BatchingConfig,
        network="copy",
        scores={"loss": False, "accuracy": True},
        data_task=COPY,
        training="copy_task.training:CopyTask",
        predicts="the tokens of a text, some of which were hidden",
    ),
)
