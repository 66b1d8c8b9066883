"""The example extension copy_task: hidden tokens, validation, and errors of incomplete tasks."""

import numpy as np
import pytest
import torch
import yaml
from copy_task.data import CopyData
from copy_task.network import CopyNetwork
from copy_task.training import CopyTask
from support.runs import Runs
from support.tasks import copy_values, opened_task

from cluster.recipe import Recipe
from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.preparation.prepare import prepare
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from foundation.errors import ExtensionError
from model.errors import ModelError
from trainer.tasks.task import TrainingTask


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    dataset = tmp_path_factory.mktemp("copy") / "dataset"
    prepare(Recipe.of(small(dataset)).data_settings, lambda progress: None)
    return dataset


def small(dataset, **changed):
    """Return the task's recipe with small shards, so that an epoch has several windows."""
    values = copy_values(dataset)
    values["data"] |= {"pairs_per_block": 64, "blocks_per_shard": 8}
    values["data"]["train"][0]["part"] = [0, 0.25]
    values["batching"] |= {"window_shards": changed.pop("window_shards", 3)}
    return values | changed


def hidden(dataset, epoch, *, backwards=False, **changed):
    """Return each example of an epoch: its ids, and the same ids with hidden tokens."""
    settings = Recipe.of(small(dataset, **changed)).data_settings
    reader = WindowReader(*open_dataset(settings.data), settings)
    windows = range(reader.layout(epoch, 0).windows_per_epoch)
    found = {}
    for window in reversed(windows) if backwards else windows:
        count = len(reader.layout(epoch, window).units)
        for batch in reader.fetch(epoch, window, 0, count):
            ends = np.cumsum(batch.fields["text"].lengths)[:-1]
            fields = [np.split(batch.fields[name].ids, ends) for name in ("text", "hidden")]
            for number, *ids in zip(batch.pair_ids.tolist(), *fields, strict=True):
                found[number] = tuple(map(tuple, ids))
    assert len(windows) > 1
    return found


@pytest.mark.long
def test_an_examples_hidden_tokens_do_not_depend_on_order_or_window(dataset):
    first = hidden(dataset, 0)
    assert hidden(dataset, 0, backwards=True) == first
    assert hidden(dataset, 0, window_shards=2) == first  # other windows, with other examples
    assert {number: text for number, (text, _) in hidden(dataset, 1).items()} == {
        number: text for number, (text, _) in first.items()
    }


@pytest.mark.long
@pytest.mark.parametrize(("epoch", "changed"), [(1, {}), (0, {"seed": 2})])
def test_another_epoch_or_seed_hides_different_tokens(dataset, epoch, changed):
    first, other = hidden(dataset, 0), hidden(dataset, epoch, **changed)
    assert first.keys() == other.keys()
    places = [
        [given == shown for given, shown in zip(*pair[number], strict=True)]
        for pair in (first, other)
        for number in sorted(pair)
    ]
    shown = np.concatenate(places[: len(first)]), np.concatenate(places[len(first) :])
    for each in shown:
        assert 1 - each.mean() == pytest.approx(0.1, abs=0.01)
    both = 1 - np.logical_or(*shown).mean()
    assert both == pytest.approx(0.01, abs=0.003)  # as if drawn independently


def test_validation_of_the_copy_task_hides_no_tokens(dataset):
    recipe = Recipe.of(small(dataset)).training()
    task, (store, manifest) = opened_task(recipe)
    from data_pipeline.batching.heldout import load_heldout
    from trainer.process.placement import Placement
    from trainer.training.validation import Validator

    network = task.build_network().eval()
    scoring = task.scoring(load_heldout(store, manifest, "validation"))
    right = total = 0
    with torch.no_grad():
        for batch in scoring.batches:
            inputs, text, real = task.collate(batch, torch.device("cpu")).inputs
            assert torch.equal(inputs, text)
            logits = network.states(inputs, real) @ network.embedding.weight.T
            right += int(((logits.argmax(2) == text) & (real == 1)).sum())
            total += int(real.sum())
    scores = Validator(scoring, Placement()).run(network).scores
    assert scores["accuracy"].value == pytest.approx(right / total)
    assert 0 < right < total


def task_of(dataset):
    recipe = Recipe.of(small(dataset)).training()
    return opened_task(recipe)[0]


class NoWidth(CopyNetwork):
    """A network without the attribute width."""

    def __init__(self, vocabulary_size, width):
        super().__init__(vocabulary_size, width)
        del self.width


class WideByFloat(CopyNetwork):
    def __init__(self, vocabulary_size, width):
        super().__init__(vocabulary_size, width)
        self.width = width / 1


class NoRecomputation(CopyNetwork):
    checkpoint_activations = None


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NoWidth, r"NoWidth, which copy_task\.network:build .* width None, .* positive int"),
        (WideByFloat, r"WideByFloat.* width 16\.0, .* positive int.* Set self\.width"),
        (NoRecomputation, r"no method checkpoint_activations\(on: bool\), .* Define it"),
    ],
)
def test_a_network_without_required_attributes_is_refused(dataset, monkeypatch, network, message):
    """The error comes before an engine is made, and ranks are not restarted after it."""
    monkeypatch.setattr("copy_task.network.CopyNetwork", network)
    with pytest.raises(ModelError, match=message):
        task_of(dataset).build_network()


def test_a_forward_pass_must_return_named_sums(dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "copy_task.network.CopyNetwork.forward",
        lambda self, hidden, text, real, loss: self.states(hidden, real).sum(),
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small(dataset)))
    runs = Runs(folder=tmp_path, recipe=tmp_path / "recipe.yaml", address="")
    with pytest.raises(ModelError, match=r"CopyNetwork returned a Tensor, .*named tuple.*LossSums"):
        runs.train("run", inline=True)


def test_a_task_that_lacks_a_method_is_refused_with_the_methods_name(dataset, monkeypatch):
    class NoTargets(CopyTask):
        targets = TrainingTask.targets

    monkeypatch.setattr("copy_task.training.CopyTask", NoTargets)
    with pytest.raises(ExtensionError, match=r"copy_task\.training:CopyTask lacks targets"):
        task_of(dataset)


def test_a_field_made_by_realise_may_contain_floats(dataset, monkeypatch):
    """docs/how-to/extending.md describes real-valued targets, which are stored as text."""

    class WithScores(CopyData):
        def texts_read(self, settings):
            return frozenset({"text"})

        def realise(self, examples, settings, tokenizers):
            scores = np.array([len(text) / 3 for text in examples.texts["text"]], np.float32)
            ones = np.ones(len(scores), dtype=np.int32)
            fields = super().realise(examples, settings, tokenizers)
            return {**fields, "score": FieldArrays(scores, ones)}

    monkeypatch.setitem(DATA_TASKS._entries, "copy", WithScores())
    recipe = Recipe.of(small(dataset))
    store, manifest = open_dataset(recipe.data)
    tokenizer = load_tokenizers(store, manifest)["text"]
    reader = WindowReader(store, manifest, recipe.data_settings)
    (batch,) = reader.fetch(0, 0, 0, 1)
    scores, texts = batch.fields["score"], tokenizer.decode(batch.fields["text"].rows())
    assert scores.ids.dtype == np.float32
    assert scores.ids.tolist() == pytest.approx([len(text) / 3 for text in texts])
