"""Implement `transloom data trace`: list the examples of a run's steps without training.

    nearest start in the record ──walk──▶ micro-batches of the requested steps ──▶ slot digests
        ──fold──▶ running digests, compared with the recorded ones

The steps may be past or future. The trace reads, plans and hashes micro-batches with the same
functions as a training run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table

from cluster.data.data_record import DataRecord, StreamStart
from cluster.recipe import load_run_recipe
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep, local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.preparation.quarantine import cursor_after
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from foundation.terminal import Terminal, shown, step_counts
from foundation.wording import counted
from run_store.folder import RunFolder
from trainer.state.digest import fold
from trainer.tasks.task import TrainingTask, training_task

IDS_SHOWN = 6
DIGEST_DIGITS_SHOWN = 16


@dataclass(frozen=True)
class TracedSlot:
    """One micro-batch of a step."""

    sample_ids: list[int]  # indices of the examples in the dataset
    digest: str
    texts: dict[str, list[str]] | None = None  # by name, one per example; None if not requested


@dataclass(frozen=True)
class TracedStep:
    """The data that a step consumed or will consume."""

    step: int
    cursor: Cursor  # position before the step
    target_tokens: int
    slots: list[TracedSlot]
    data_digest: str  # running digest after the step
    recorded_digest: str | None

    @property
    def equal(self) -> bool | None:
        """True if the computed and recorded digests are equal; None if no digest is recorded."""
        return None if self.recorded_digest is None else self.recorded_digest == self.data_digest

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "cursor": self.cursor.to_json(),
            "target_tokens": self.target_tokens,
            "slots": [
                {"slot": index, "sample_ids": slot.sample_ids, "digest": slot.digest}
                | ({} if slot.texts is None else {"texts": slot.texts})
                for index, slot in enumerate(self.slots)
            ],
            "data_digest": self.data_digest,
            "recorded_digest": self.recorded_digest,
            "equal": self.equal,
        }


def trace(
    run: Path, first: int, last: int, dataset: str | None, console: Terminal, texts: bool = False
) -> list[TracedStep]:
    """Return the steps `first` to `last` (inclusive) of a run.

    Args:
        dataset: new folder or URL of the dataset if the dataset has moved since training; otherwise
            None.
        texts: whether to decode the texts of the examples.

    Raises:
        RunMismatchError: the run does not exist, or the dataset is not the run's.
        DatasetError: shards cannot be read.
    """
    folder = RunFolder(run)
    folder.card()
    recipe = load_run_recipe(folder)
    if dataset is not None:
        moved = recipe.data.model_copy(update={"dataset": dataset})
        recipe = recipe.model_copy(update={"data": moved})
    store, manifest = open_dataset(recipe.data)
    record = DataRecord(folder, manifest)
    fed = training_task(recipe, manifest, load_tokenizers(store, manifest))
    start = record.start_before(first)
    digest = start.data_digest
    traced = []
    with step_counts(console) as progress:
        task = progress.add_task(f"from step {start.step}", total=last - start.step)
        for step, data in walk(store, recipe.data_settings, record, start, last):
            # Continue from the recorded digest if there is one, so that a difference shows only at
            # the step that caused it.
            before = record.digests.get(step - 1, digest)
            found = _traced(step, data, fed, before, record, texts and step >= first)
            digest = found.data_digest
            if step >= first:
                traced.append(found)
            progress.advance(task)
    return traced


def walk(
    store: DatasetStore, settings: DataSettings, record: DataRecord, start: StreamStart, last: int
) -> Iterator[tuple[int, RankStep]]:
    """Yield the number and the data of each step after `start`, as for a run with one rank.

    Raises:
        DatasetFileError: the data of the next step cannot be read.
    """
    step, cursor = start.step + 1, start.cursor
    while step <= last:
        manifest, identity = record.manifest_at(step), record.identity_at(step)
        cursor = cursor_after(manifest, settings, record.identity_at(step - 1), cursor)
        reader = WindowReader(store, manifest, settings)
        slots = settings.batching.micro_batches_per_step
        for data in local_rank_steps(reader, cursor, 0, 1, slots):
            yield step, data
            step, cursor = step + 1, data.next_cursor
            if step > last or record.identity_at(step) != identity:
                break


def _traced(
    step: int,
    data: RankStep,
    task: TrainingTask,
    digest_before: str,
    record: DataRecord,
    texts: bool,
) -> TracedStep:
    cpu = torch.device("cpu")
    digests = [task.collate(batch, cpu).digest for batch in data.micro_batches]
    return TracedStep(
        step=step,
        cursor=data.cursor,
        target_tokens=data.units,
        slots=[
            TracedSlot(
                batch.pair_ids.tolist(), digest.hex(), task.example_texts(batch) if texts else None
            )
            for batch, digest in zip(data.micro_batches, digests, strict=True)
        ],
        data_digest=fold(digest_before, digests),
        recorded_digest=record.digests.get(step),
    )


def trace_report(steps: Sequence[TracedStep]) -> Group:
    """Format the steps for the terminal, with the first sample ids of each slot."""
    parts: list[RenderableType] = []
    for traced in steps:
        cursor = traced.cursor
        parts += [
            shown(
                (f"step {traced.step:,}", "bold"),
                f"   epoch {cursor.epoch}, window {cursor.window}, offset {cursor.offset}   "
                f"{traced.target_tokens:,} target tokens",
            ),
            _slots_table(traced.slots),
            *_text_tables(traced.slots),
            shown(f"  data digest  {_short(traced.data_digest)}   ", _digest_status(traced)),
            "",
        ]
    return Group(*parts, _summary(steps))


def _slots_table(slots: list[TracedSlot]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("  slot", justify="right", no_wrap=True)
    table.add_column("pairs", justify="right", no_wrap=True)
    table.add_column("slot digest", no_wrap=True)
    table.add_column("sample ids", overflow="ellipsis", no_wrap=True)
    for index, slot in enumerate(slots):
        ids = " ".join(map(str, slot.sample_ids[:IDS_SHOWN]))
        more = " …" if len(slot.sample_ids) > IDS_SHOWN else ""
        table.add_row(str(index), f"{len(slot.sample_ids):,}", _short(slot.digest), ids + more)
    return table


def _text_tables(slots: list[TracedSlot]) -> Iterator[RenderableType]:
    """Yield a table of the examples of each slot, if their texts were requested."""
    for index, slot in enumerate(slots):
        if slot.texts is None:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("  slot", justify="right", no_wrap=True)
        table.add_column("sample", justify="right", no_wrap=True)
        for name in slot.texts:
            table.add_column(shown(name))
        for sample, *row in zip(slot.sample_ids, *slot.texts.values(), strict=True):
            table.add_row(str(index), str(sample), *map(shown, row))
        yield table


def _digest_status(traced: TracedStep) -> tuple[str, str]:
    if traced.recorded_digest is None:
        return "not in the record", "dim"
    if traced.equal:
        return "equal to the record", "green"
    return f"DIFFERENT: the record has {_short(traced.recorded_digest)}", "bold red"


def _summary(steps: Sequence[TracedStep]) -> RenderableType:
    different = [f"{traced.step:,}" for traced in steps if traced.equal is False]
    if different:
        told = (
            f"DIFFERENT from the record: step {', '.join(different)}. This dataset and this "
            "version of transloom produce other data than the run used. Verify the dataset with "
            "`transloom data verify`, and trace with the version that trained the run."
        )
        return shown((told, "red"))
    equal = sum(traced.equal is True for traced in steps)
    return f"{equal:,} of {counted(len(steps), 'step')} are recorded, with equal digests."


def _short(digest: str) -> str:
    return digest[:DIGEST_DIGITS_SHOWN] + "…"
