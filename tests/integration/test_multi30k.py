"""Commands on a real corpus: prepare, train, evaluate, translate."""

import json
import sys

import pytest
from support.runs import Runs

from cluster.recipe import RECIPES
from transloom.cli import app

pytestmark = pytest.mark.long

RECIPE = RECIPES / "multi30k-ende.yaml"
SMALL_STEPS = [
    "engine.precision=fp32",
    "tracking.wandb=disabled",  # test_secrets.py tests what W&B keeps offline
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "batching.max_tokens_per_micro_batch=256",
    "trainer.max_steps=20",
    "cluster.cpus_per_rank=0.5",
    "checkpoints.every_steps=1000",
    # After 20 steps, translations reach the limit of length, and longer ones are not better.
    "decoding.max_length_factor=0.2",
    "decoding.max_extra_length=2",
]


@pytest.fixture
def transloom(monkeypatch, capsys):
    """Return a function that runs a command in this process and returns its standard output."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["transloom", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        output = capsys.readouterr()
        assert exit_.value.code == 0, output.err
        return output.out

    return run


@pytest.fixture
def options(multi30k, tmp_path):
    return [*SMALL_STEPS, f"data.mirror={multi30k}", f"data.dataset={tmp_path}/dataset"]


def test_a_real_corpus_is_prepared_trained_evaluated_and_translated(transloom, options, tmp_path):
    prepared = json.loads(transloom("prepare", RECIPE, *options, "--json"))
    assert prepared["pairs"] == 29_000
    again = json.loads(transloom("prepare", RECIPE, *options, "--json"))
    assert again["unchanged"]
    facts = json.loads(transloom("data", "info", tmp_path / "dataset", "--json"))
    assert facts["identity"] == prepared["identity"]

    runs = Runs(RECIPE, tmp_path, address="")
    result = runs.train("run", *options, "cluster.ranks=1", inline=True)
    assert result.validation is not None
    assert result.validation.scores["bleu"].value >= 0
    curve = runs.curve("run")
    assert len(curve) == 20
    assert sum(curve[-5:]) < 0.99 * sum(curve[:5])

    run = tmp_path / "run"
    (scores,) = json.loads(transloom("evaluate", run, "--beam-size", 2, "--json"))
    assert scores["sentences"] == 1_000
    assert "tok:13a" in scores["bleu"]["signature"]
    assert "nc:6" in scores["chrf"]["signature"]
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("A dog runs.\n\nTwo men.\n")
    assert len(transloom("translate", run, sentences).splitlines()) == 3
    assert len(transloom("translate", run, sentences, "--precision", "bf16").splitlines()) == 3
    lines = transloom("translate", run, sentences, "--n-best", 2, "--json").splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["A dog runs.", "", "Two men."]
    assert all(len(json.loads(line)["translations"]) == 2 for line in lines)
    (listed,) = json.loads(transloom("checkpoints", "list", run, "--json"))
    assert listed["step"] == 20
    assert listed["data_digest"] == runs.digests("run")[-1]
    assert json.loads(transloom("checkpoints", "verify", run, "--json"))[0]["intact"]


@pytest.mark.chaos  # shorter form with the phrase book: test_one_curve.py
def test_two_ranks_have_the_data_and_the_curve_of_one_rank(transloom, options, ray_head, tmp_path):
    transloom("prepare", RECIPE, *options)
    runs = Runs(RECIPE, tmp_path, ray_head.address)
    for ranks in (1, 2):
        runs.train(f"r{ranks}", *options, f"cluster.ranks={ranks}", inline=ranks == 1)
    assert runs.digests("r2") == runs.digests("r1")
    assert runs.curve("r2") == pytest.approx(runs.curve("r1"), rel=1e-5)
