"""What several of the trainer's tests start from."""

import pytest
from support.recipes import tiny_recipe
from support.records.checkpoints import save_checkpoint

from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.checkpoints.format import CheckpointHeader
from trainer.recipe import identity_of
from trainer.runs.folder import RunFolder
from trainer.tasks.network import build_network
from trainer.zero.fragments import Fragment


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory, phrasebook):
    """A run with two checkpoints of untrained weights, made without training."""
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny_recipe(phrasebook)
    store, manifest = open_dataset(recipe.data)
    run = RunFolder(folder / "tiny")
    run.open(recipe, store, manifest)
    tokenizers = load_tokenizers(store, manifest)
    for step in (1, 2):
        training = recipe.training().model_copy(update={"seed": step})
        model = build_network(training, tokenizers)
        weights = dict(model.named_parameters())
        fragments = [Fragment("master", n, 0, p.detach().view(-1)) for n, p in weights.items()]
        header = CheckpointHeader(
            step=step,
            optimizer_step=step,
            cursor={"epoch": 0, "window": 0, "offset": 0},
            data_digest="0" * 64,
            dataset_identity=manifest.identity,
            recipe=training.model_dump(mode="json"),
            identity=identity_of(training),
            numerics={},
            parameters={name: list(p.shape) for name, p in weights.items()},
            parameter_groups=[],
            target_tokens_seen=0,
        )
        save_checkpoint(run.checkpoints, header, [fragments])
    return run
