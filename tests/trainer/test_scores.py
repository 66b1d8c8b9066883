"""Scores registered by an extension are computed from validation texts and select the best."""

import pytest
from support.recipes import tiny_values, write_yaml
from support.runs import Runs

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.scores import Score
from transloom.inference.evaluation import score_heldout
from transloom.inference.trained_network import load_network

MODULE = """
from trainer.scores import SCORES, ScoreKind


def words_per_sentence(made, expected):
    assert len(made) == len(expected)
    return sum(len(text.split()) for text in made) / len(made)


SCORES.register("words_per_sentence", ScoreKind(words_per_sentence, more_is_better=True))
SCORES.register("not_a_number", ScoreKind(lambda made, expected: float("nan"), True))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, phrasebook):
    folder = tmp_path_factory.mktemp("scores")
    (folder / "ext_words.py").write_text(MODULE)
    values = tiny_values(phrasebook, max_steps=2, validate_every_steps=1)
    values |= {"extensions": ["ext_words"], "extension_folder": str(folder)}
    values["trainer"]["validation_scores"] = ["words_per_sentence", "not_a_number"]
    values["checkpoints"] = {"every_steps": 1, "best_by": "words_per_sentence"}
    values["decoding"] = {"max_extra_length": 1, "max_length_factor": 0.5, "beam_size": 1}
    recipe = write_yaml(folder / "recipe.yaml", values)
    runs = Runs(recipe, folder, address="")
    runs.train("run", inline=True)
    return runs


def test_a_registered_score_is_in_the_record_and_in_checkpoints(runs):
    (*_, last) = runs.lines("run", "validation")
    texts = sorted((runs.folder / "run" / "translations").glob("*.txt"))[-1].read_text()
    made = texts.removesuffix("\n").split("\n")
    words = sum(len(line.split()) for line in made) / len(made)
    assert words > 0
    made_greedily = {"more_is_better": True, "decoding": "greedy"}
    assert last["scores"]["words_per_sentence"] == {"value": words, **made_greedily}
    assert last["scores"]["not_a_number"] == made_greedily
    assert last["scores"]["bleu"]["decoding"] == "greedy"
    assert "decoding" not in last["scores"]["loss"]
    newest = Checkpoint(list_checkpoints(runs.folder / "run" / "checkpoints")[-1])
    assert newest.header.scores["words_per_sentence"].value == words


def test_score_heldout_returns_the_scores_of_the_validation(runs):
    found = load_network(runs.folder / "run", None, "cpu", "fp32")
    (*_, last) = runs.lines("run", "validation")
    scores = score_heldout(found, found.recipe.data, "validation")
    assert {name: score.value for name, score in scores.items()} == {
        name: pytest.approx(score["value"], rel=1e-6) if "value" in score else None
        for name, score in last["scores"].items()
    }


@pytest.mark.parametrize("more_is_better", [True, False])
def test_a_score_is_better_only_if_it_is_strictly_better(more_is_better):
    def score(value):
        return Score(value=value, more_is_better=more_is_better)

    worse, better = (1.0, 2.0) if more_is_better else (2.0, 1.0)
    assert score(better).is_better_than(worse)
    assert not score(worse).is_better_than(better)
    assert not score(better).is_better_than(better)
    assert score(worse).is_better_than(None)
    assert not score(None).is_better_than(None)
    assert not score(None).is_better_than(worse)
    assert score(better).cost < score(worse).cost
    assert score(0.0).cost == 0.0
    assert score(None).cost is None
