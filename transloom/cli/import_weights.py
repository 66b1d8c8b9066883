"""Command `transloom import`: make a run from a model in Hugging Face's layout.

folder ─▶ network ─▶ comparison with the recipe's network ─▶ run folder ─▶ checkpoint of step 0
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import RecipeError
from foundation.wording import counted
from run_store.errors import RunMismatchError
from transloom.cli.options import (
    JsonOption,
    Overrides,
    answer,
)

if TYPE_CHECKING:
    from cluster.recipe import Recipe
    from data_pipeline.dataset.manifest import Manifest
    from data_pipeline.storage.store import DatasetStore
    from model.networks.decoder_only import DecoderOnly

# Settings that do not affect the output of a trained network.
_FREE = ("network", "preset", "dropout", "attention_dropout")


def import_weights(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder with config.json and safetensors files."),
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the new run.")],
    overrides: Overrides = None,
    *,
    recipe: Annotated[
        str,
        typer.Option(
            help="Recipe with the same network, and with a dataset that was prepared with the "
            "network's tokenizer."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a run from a GPT-2 or Llama model in Hugging Face's layout.

    You can generate texts with the new run, or start another run from its weights with
    trainer.init_from=RUN. The new run cannot be trained further, because it has no optimizer state.

    Example:  transloom import SmolLM-135M runs/smol --recipe smol.yaml
    """
    summary = import_run(folder, run, recipe, overrides or ())
    answer(
        summary,
        as_json,
        f"{summary['run']}: {summary['model']}, {counted(summary['parameters'], 'weight')}",
    )


def import_run(folder: Path, run: Path, recipe: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Make a run from the weights in a folder, and return a summary.

    Args:
        recipe: file or name of a recipe with the same network, and with the dataset and tokenizer
            for it. `trainer.init_from` is ignored, because it may name the run that is made here.

    Raises:
        RecipeError: the recipe is for another task.
        ModelError: the folder has no readable network.
        RunMismatchError: the network differs from the recipe's, or the run already exists.
    """
    from cluster.recipe import find_recipe, load_recipe, with_absolute_paths
    from cluster.supervision.run_checks import check_run, open_run
    from model.config.decoder_only import DecoderOnlyConfig
    from model.hugging_face.language_model import load_hugging_face
    from run_store.checkpoints.folder_names import list_checkpoints
    from run_store.folder import RunFolder
    from run_store.lease import Lease
    from run_store.record.recorded_status import write_recorded_status
    from trainer.state.imported_weights import commit_imported

    loaded = load_recipe(find_recipe(recipe), [*overrides, "trainer.init_from=null"])
    if loaded.task != "causal_lm" or not isinstance(loaded.model, DecoderOnlyConfig):
        raise RecipeError(
            f"task is {loaded.task} and model.network is {loaded.model.network}, but only a "
            "decoder_only network of causal_lm can be imported: name a recipe with these values. "
            "To start a translation run from a Marian model, set trainer.init_from=FOLDER"
        )
    target = RunFolder(run)
    # A run without a checkpoint is allowed: a killed import leaves it, and is repeated here.
    if target.has_begun() and (target.metrics.exists() or list_checkpoints(target.checkpoints)):
        raise RunMismatchError(f"{run} already is a run: name a new folder")
    loaded = with_absolute_paths(loaded)
    store, manifest = check_run(loaded, target)
    network = load_hugging_face(folder)
    _require_same_network(loaded, folder, network, store, manifest)
    with Lease(run) as lease:
        open_run(loaded, target, store, manifest)
        training = loaded.training()
        checkpoint = commit_imported(target, lease.work, training, network, str(folder))
        write_recorded_status(target, lease.owner)
    return {
        "run": str(run),
        "checkpoint": checkpoint.path.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "model": str(loaded.model),
    }


def _require_same_network(
    recipe: "Recipe",
    folder: Path,
    network: "DecoderOnly",
    store: "DatasetStore",
    manifest: "Manifest",
) -> None:
    from data_pipeline.config.data import PackedBatchingConfig
    from data_pipeline.config.text import TEXT
    from data_pipeline.tokenizers.tokenizer import load_tokenizers

    ours, theirs = recipe.model, network.config
    values = [
        (f"model.{name}", getattr(ours, name), getattr(theirs, name))
        for name in type(theirs).model_fields
        if name not in _FREE
    ]
    pieces = load_tokenizers(store, manifest)[TEXT].vocabulary_size
    values.append(("pieces of the dataset's tokenizer", pieces, network.vocabulary_size))
    if theirs.positions == "learned":
        assert isinstance(recipe.batching, PackedBatchingConfig)
        context_length = recipe.batching.context_length
        values.append(("batching.context_length", context_length, network.context_length))
    differences = [
        f"{name}: {here} in the recipe, {there} in {folder}"
        for name, here, there in values
        if here != there
    ]
    if differences:
        raise RunMismatchError(
            f"The network in {folder} differs from the recipe's network: {'; '.join(differences)}. "
            "Put the values of the network in the folder into the recipe, and prepare the recipe's "
            "dataset with that network's tokenizer"
        )
    _require_same_pieces(folder, manifest)


def _require_same_pieces(folder: Path, manifest: "Manifest") -> None:
    """Check that the dataset's tokenizer equals the folder's tokenizer, if the folder has one.

    Raises:
        RunMismatchError: the tokenizers differ.
    """
    from data_pipeline.config.text import TEXT
    from transloom.inference.export.hugging_face import TOKENIZER_FILE

    file = folder / TOKENIZER_FILE
    if not file.is_file():
        return
    ours, theirs = manifest.tokenizers[TEXT].sha256, hashlib.sha256(file.read_bytes()).hexdigest()
    if ours != theirs:
        raise RunMismatchError(
            f"{file} has sha256 {theirs[:16]}…, but the dataset's tokenizer has {ours[:16]}…, so "
            "the pieces do not mean the same. Set tokenizer.model and tokenizer.model_sha256 to "
            "that file and its sha256, and prepare the dataset again"
        )
