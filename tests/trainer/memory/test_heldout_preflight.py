"""Before step 1, the widest batches of a validation are tried, without side effects."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.ranks.validation_jobs import SENTENCES
from support.recipes import tiny_recipe
from support.tasks import language_model_values, opened_task

from cluster.recipe import Recipe
from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from model.blocks.positions import sinusoidal_table
from model.networks.transformer import Transformer
from trainer.errors import MemoryPreflightError
from trainer.memory import device_memory
from trainer.memory.heldout_preflight import preflight_heldout, smaller_batch, widest
from trainer.process import host_memory
from trainer.process.placement import Placement
from trainer.tasks.task import Scoring

LONG_LINE = 17


class Prepared:
    """Task with its network and the scoring of some lines, of which one may be long."""

    def __init__(self, recipe, long=""):
        self.task, (store, manifest) = opened_task(recipe.training())
        whole = load_heldout(store, manifest, "validation")
        texts = {field: texts[:SENTENCES] for field, texts in whole.texts.items()}
        for of_field in texts.values():
            of_field[LONG_LINE - 1] = long or of_field[LONG_LINE - 1]
        self.scoring = self.task.scoring(HeldOut(texts, {}))
        self.network = self.task.build_network()

    @contextmanager
    def inference_model(self):
        yield self.network.eval()

    def try_it(self):
        preflight_heldout(self.inference_model, self.scoring, Placement())


@pytest.fixture(autouse=True)
def no_memory_is_ample(monkeypatch):
    monkeypatch.setattr(device_memory, "AMPLE_SHARE", 0.0)


@pytest.fixture
def pairs(phrasebook):
    return Prepared(tiny_recipe(phrasebook), "je suis étudiant " * 40)


@pytest.fixture
def documents(phrasebook_documents):
    return Prepared(Recipe.of(language_model_values(phrasebook_documents)))


@pytest.fixture
def scored(monkeypatch):
    """Return a function that records the batches a scoring gets, in order."""
    found = []

    def watch(prepared):
        score = prepared.scoring.score

        def watched(network, batch, number, device):
            assert not network.training
            assert torch.is_inference_mode_enabled()
            found.append(batch)
            return score(network, batch, number, device)

        monkeypatch.setattr(prepared.scoring, "score", watched)
        return found

    return watch


def test_the_widest_batch_is_scored_without_side_effects(pairs, scored):
    batches = scored(pairs)
    weights = {name: value.clone() for name, value in pairs.network.state_dict().items()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pairs.try_it()
    assert torch.equal(torch.get_rng_state(), before)
    after = pairs.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())
    longest = [int(batch.fields["src"].lengths.max()) for batch in batches]
    whole = max(int(batch.fields["src"].lengths.max()) for batch in pairs.scoring.batches)
    assert whole > 300
    # A single long sentence is tried in parts of growing length.
    assert [whole // 4, whole // 2, whole] in [longest[n : n + 3] for n in range(len(longest))]


def test_ample_memory_is_recognized_from_a_small_part(pairs, scored, monkeypatch):
    monkeypatch.setattr(device_memory, "AMPLE_SHARE", 0.25)
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 10**15)
    batches = scored(pairs)
    monkeypatch.setattr(pairs.scoring, "samples", lambda network: pytest.fail("not needed"))
    pairs.try_it()
    tokens = [int(batch.fields["src"].lengths.sum()) for batch in batches]
    whole = max(int(batch.fields["src"].lengths.sum()) for batch in pairs.scoring.batches)
    assert len(batches) <= 2
    assert max(tokens) <= whole / 4


def test_batches_and_samples_of_a_language_model_are_tried(documents, scored, monkeypatch):
    batches, sampled = scored(documents), []
    samples = documents.scoring.samples
    monkeypatch.setattr(
        documents.scoring, "samples", lambda network: sampled.append(samples(network))
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    documents.try_it()
    assert torch.equal(torch.get_rng_state(), before)
    assert batches
    assert {id(batch) for batch in batches} <= {id(batch) for batch in documents.scoring.batches}
    assert len(sampled) == 1


def test_a_memory_shortage_names_the_line_of_the_validation_set(pairs, monkeypatch):
    encode = Transformer.encode

    def limited(model, source):
        if source.numel() > 300:
            raise torch.OutOfMemoryError("out of memory")
        return encode(model, source)

    monkeypatch.setattr(Transformer, "encode", limited)
    with pytest.raises(MemoryPreflightError) as refused:
        pairs.try_it()
    said = str(refused.value)
    assert said.startswith("Rank 0 of 1 cannot score the validation set, because 1 × (")
    assert f"tokens at once (lines {LONG_LINE}) need more memory than available" in said


class Squares(Scoring):
    """Allocates memory as attention does: a number for each pair of tokens."""

    rows = columns = 1
    scores_parts = True

    def __init__(self, *lengths):
        sizes = np.array(lengths, dtype=np.int32)
        field = FieldArrays(np.zeros(sizes.sum(), dtype=np.int32), sizes)
        self.batches = [MicroBatch(np.arange(len(sizes)), {"text": field})]
        self.scored = []

    def score(self, network, micro_batch, number, device):
        length = int(micro_batch.fields["text"].lengths.max())
        self.scored.append((len(micro_batch.pair_ids), length))
        np.ones((len(micro_batch.pair_ids), length, length), dtype=np.float32)
        yield 0, np.zeros(1)

    def summarise(self, table):
        raise NotImplementedError


@pytest.mark.long
@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([16000], [(1, 1000), (1, 4000), (1, 8000)]),
        ([4000] * 16, [(1, 4000), (4, 4000), (8, 4000)]),
    ],
)
def test_a_batch_that_would_exceed_the_hosts_memory_is_not_tried(monkeypatch, lengths, parts):
    """The whole batch takes 1 GB."""

    @contextmanager
    def nothing():
        yield torch.nn.Identity()

    monkeypatch.setattr(host_memory, "available_bytes", lambda: 700 * 10**6)
    scoring = Squares(*lengths)
    with pytest.raises(MemoryPreflightError, match=r"its host had 0\.7 GB left"):
        preflight_heldout(nothing, scoring, Placement())
    assert scoring.scored == parts
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 10**11)
    scoring = Squares(*(length // 8 for length in lengths))
    preflight_heldout(nothing, scoring, Placement())
    assert scoring.scored[-1] == (len(lengths), lengths[0] // 8)


def test_the_widest_batches_have_most_tokens_and_most_scores():
    def batch(rows, length):
        sizes = np.full(rows, length, dtype=np.int32)
        return MicroBatch(
            np.arange(rows), {"text": FieldArrays(np.zeros(rows * length, np.int32), sizes)}
        )

    batches = [batch(10, 10), batch(4, 20), batch(1, 50)]
    assert widest(batches) == [0, 2]
    assert widest(batches[:1]) == [0]


def test_smaller_batches_take_the_last_tokens_or_the_last_rows():
    field = FieldArrays(np.arange(12, dtype=np.int32), np.array([8, 4], dtype=np.int32))
    batch = MicroBatch(np.arange(2), {"text": field})
    shorter, growth = smaller_batch(batch, 4)
    assert growth == 2
    assert shorter.fields["text"].ids.tolist() == [6, 7, 11]
    rows = replace(
        batch,
        pair_ids=np.arange(4),
        fields={"text": FieldArrays(np.arange(8, dtype=np.int32), np.full(4, 2, np.int32))},
    )
    fewer, growth = smaller_batch(rows, 2)
    assert growth == 1
    assert fewer.pair_ids.tolist() == [2, 3]
    assert fewer.fields["text"].ids.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("width", [2, 6, 32, 100, 512])
def test_a_larger_position_table_starts_with_the_same_bits(width):
    """Long held-out sentences enlarge the table before training reads it."""
    assert torch.equal(sinusoidal_table(2048, width)[:256], sinusoidal_table(256, width))


@pytest.mark.long
def test_a_run_with_the_preflight_has_the_same_bits_as_one_without(inline_runs, monkeypatch):
    steps = ("trainer.max_steps=3", "trainer.ema_decay=0.9", "trainer.validate_every_steps=2")
    inline_runs.train("tried", *steps, inline=True)
    tried = []
    monkeypatch.setattr(
        "trainer.memory.preflight.preflight_heldout", lambda *arguments: tried.append(arguments)
    )
    inline_runs.train("untried", *steps, inline=True)
    assert len(tried) == 1
    assert inline_runs.curve("tried") == inline_runs.curve("untried")
    assert inline_runs.digests("tried") == inline_runs.digests("untried")
    scores = [inline_runs.lines(name, "validation") for name in ("tried", "untried")]
    assert [line["scores"] for line in scores[0]] == [line["scores"] for line in scores[1]]
