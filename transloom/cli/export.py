"""Command `transloom export`: write a run's model in the format of another library.

run ─▶ its newest weights ─▶ writer for its task and the target library ─▶ new folder
"""

import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipeline.storage.regular_files import publish_folder
from foundation.folder_lock import work_folder
from foundation.wording import join_items
from model.errors import ModelError
from run_store.errors import RunError
from transloom.cli.options import CheckpointOption, JsonOption, RunArgument, answer
from transloom.inference.engine_names import ComputeType

if TYPE_CHECKING:
    from transloom.inference.trained_network import TrainedNetwork

# Writes the files of a run into a folder, and returns a short description of the model. Some take
# the data type of the stored weights as a third argument.
Write = Callable[..., str]


class Target(StrEnum):
    """Library for which a model is exported."""

    HUGGINGFACE = "huggingface"
    CTRANSLATE2 = "ctranslate2"


# Package of the `Write` functions that `TaskKind.exporters` names with a leading dot.
WRITERS = "transloom.inference.export"


def export(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create.")],
    to: Annotated[Target, typer.Option(help="Library to export for.")] = Target.HUGGINGFACE,
    checkpoint: CheckpointOption = None,
    quantization: Annotated[
        ComputeType | None,
        typer.Option(
            help="With --to ctranslate2: data type of the stored weights. Default: float32."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a run's model and tokenizers for another library.

    By default, the export is for Hugging Face's `from_pretrained`: a translation model becomes a
    MarianMT, and a language model a GPT-2 or Llama. CTranslate2 supports only translation models.
    If the library does not support a feature of the model, the command fails and names the feature.

    Examples:

      transloom export runs/multi30k-ende exported

      transloom export runs/multi30k-ende exported --to ctranslate2 --quantization int8

      transloom export runs/shakespeare-char exported --to huggingface --checkpoint 2000
    """
    summary = export_run(run, folder, checkpoint, to, quantization)
    answer(summary, as_json, f"{summary['folder']}: {summary['model']}, {summary['files']}")


def export_run(
    run: Path,
    folder: Path,
    checkpoint: str | None,
    target: Target = Target.HUGGINGFACE,
    quantization: ComputeType | None = None,
) -> dict[str, Any]:
    """Write the model and its tokenizers into a new folder, and return a summary.

    The function writes the files into a hidden sibling folder, and renames it when they are
    complete.

    Args:
        quantization: data type of the weights in a CTranslate2 model; None for float32.

    Raises:
        RunError: the folder has files, or runs of this task cannot be exported to the target.
        ModelError: the target does not support the network; the message names the feature.
    """
    from transloom.inference.trained_network import load_network

    named, folder = folder, folder.absolute()  # "." has no name, but its absolute path has one
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is a file or a folder with files: name a new folder")
    if quantization is not None and target is not Target.CTRANSLATE2:
        raise RunError(
            f"--quantization is {quantization} and --to is {target}, but only --to ctranslate2 "
            "stores quantized weights: leave out --quantization, or use --to ctranslate2"
        )
    trained = load_network(run, checkpoint, "cpu", "fp32")
    write = _writer(trained, target)
    data_type = () if quantization is None else (quantization,)
    try:
        with work_folder(folder) as work:
            unfinished = work / folder.name
            unfinished.mkdir()
            model = write(trained, unfinished, *data_type)
            files = sorted(path.name for path in unfinished.iterdir())
            publish_folder(unfinished, folder)  # also replaces an existing empty folder
    except ModelError as error:
        if target is Target.CTRANSLATE2 or not _fits_ctranslate2(trained):
            raise
        chosen = () if checkpoint is None else ("--checkpoint", checkpoint)
        command = ("transloom", "export", str(run), str(named), "--to", "ctranslate2", *chosen)
        raise ModelError(
            f"{error} To export the model for CTranslate2, run: {shlex.join(command)}"
        ) from error
    return {
        "folder": str(folder),
        "model": model,
        "checkpoint": trained.checkpoint.path.name,
        "files": join_items(files),
    }


def _fits_ctranslate2(trained: "TrainedNetwork") -> bool:
    from transloom.inference.ctranslate2.conversion import require_supported
    from transloom.inference.export.ctranslate2 import require_plain

    if Target.CTRANSLATE2 not in trained.recipe.kind.exporters:
        return False
    try:
        require_plain(trained.tokenizers.values())
        require_supported(trained.model, trained.tokenizers)
    except (ModelError, RunError):
        return False
    return True


def _writer(trained: "TrainedNetwork", target: Target) -> Write:
    from foundation.registry import imported
    from foundation.tasks import TASKS

    writers = trained.recipe.kind.exporters
    if target not in writers:
        remedy = "name a run of another task"
        if writers:
            remedy = f"export it with --to {' or '.join(writers)}"
        tasks = [name for name in TASKS if target in TASKS[name].exporters]
        raise RunError(
            f"{trained.weights.run} was trained for {trained.recipe.task}, but the export for "
            f"{target} supports only runs of {join_items(tasks)}: {remedy}"
        )
    return imported(writers[target], WRITERS)
