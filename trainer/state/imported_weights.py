"""Imported weights, which were trained elsewhere, as the checkpoint of step 0 of a run.

The checkpoint holds no moments, and the run has not trained on any data. The run can be used like
any other, and other runs can start from its weights (`trainer.init_from`), but its own training
cannot resume.
"""

from pathlib import Path

import torch
from torch import nn

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.commit import commit
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.fragment import MASTER
from run_store.checkpoints.state_file import fragment_key, state_file_name, write_state_file
from run_store.folder import RunFolder
from trainer.recipe import TrainingRecipe, identity_of
from trainer.state.progress import Progress


def commit_imported(
    run: RunFolder, work: Path, recipe: TrainingRecipe, network: nn.Module, source: str
) -> Checkpoint:
    """Write a network's weights as the first checkpoint of a run; only its owner may call it.

    Args:
        run: the run folder, which has been opened with the recipe.
        work: the owner's work folder.
        recipe: the recipe of the run.
        network: the network with the weights.
        source: description or path of the origin of the weights.

    Raises:
        OSError: the checkpoint cannot be written, or exists already.
    """
    weights = {
        name: parameter.detach().to("cpu", torch.float32).contiguous()
        for name, parameter in network.named_parameters()
    }
    partial = work / folder_name(0)
    partial.mkdir()
    file = write_state_file(
        partial / state_file_name(0, 1),
        {fragment_key(MASTER, name, 0): weight.numel() for name, weight in weights.items()},
        (weight.view(-1).view(torch.uint8).numpy().data for weight in weights.values()),
    )
    nothing = Progress()
    header = CheckpointHeader(
        step=nothing.step,
        optimizer_step=0,
        cursor=nothing.cursor.to_json(),
        data_digest=nothing.data_digest,
        dataset_identity=run.card().dataset_identity,
        recipe=recipe.model_dump(mode="json"),
        identity=identity_of(recipe),
        numerics={},
        parameters={name: list(weight.shape) for name, weight in weights.items()},
        parameter_groups=[],
        target_tokens_seen=nothing.target_tokens_seen,
        imported_from=source,
    )
    return commit(partial, run.checkpoints / partial.name, header, [file])
