"""Fine-tuning of a Marian model of transformers: importing and exporting its weights."""

import pytest
import torch
from support.marian import write_model
from support.ranks import marian_jobs
from support.ranks.engine_jobs import Shape
from transformers import MarianMTModel

from model.hugging_face.files import read_model
from model.hugging_face.files import write_model as write_ours
from model.hugging_face.marian import from_marian, to_marian
from trainer.tasks.frozen import frozen_names

# The ids that the jobs' micro-batches use.
IDS = {"pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 3, "forced_eos_token_id": 3}
FROZEN = ("target_embedding.weight", "output_bias", "encoder.layers.0.*")
STEPS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "opus"
    write_model(path, 37, **IDS)
    return path


@pytest.fixture(scope="module")
def tuned(rank_pools, folder):
    """Return first weights, losses and last weights of tuning on one rank."""
    shape = Shape(1, numerics="exact")
    return rank_pools(1).run(marian_jobs.tune, shape, folder, FROZEN, STEPS)[0]


def test_tuning_starts_with_the_folders_weights_and_keeps_frozen_ones(tuned, folder):
    theirs = dict(from_marian(*read_model(folder)).named_parameters())
    first, _, last = tuned
    frozen = frozen_names(theirs, FROZEN)
    assert "output_bias" in frozen
    assert first.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(first[name], weight), name
        assert torch.equal(last[name], weight) == (name in frozen), name


@pytest.mark.long
def test_tuning_on_two_ranks_has_the_same_bits(rank_pools, tuned, folder):
    _, losses, weights = tuned
    assert len(set(losses)) == STEPS
    shape = Shape(3, numerics="exact")
    for _, others, other_weights in rank_pools(2).run(
        marian_jobs.tune, shape, folder, FROZEN, STEPS
    ):
        assert others == losses
        assert all(torch.equal(other_weights[name], weight) for name, weight in weights.items())


@torch.no_grad()
def test_a_tuned_model_exported_to_transformers_has_equal_logits(tuned, folder, tmp_path):
    """Compare logits of the exported model with those of our network."""
    network = from_marian(*read_model(folder)).eval()
    network.load_state_dict(tuned[2])
    write_ours(tmp_path / "back", to_marian(network))
    theirs = MarianMTModel.from_pretrained(tmp_path / "back").eval()
    source = torch.tensor([[5, 9, 30, 3, 0], [7, 8, 11, 12, 3]])
    target = torch.tensor([[2, 20, 6, 4], [2, 31, 5, 9]])
    real = (source != 0).long()
    logits = theirs(source, attention_mask=real, decoder_input_ids=target).logits
    ours = network.logits(network.decode(target, network.encode(source), source))
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)
