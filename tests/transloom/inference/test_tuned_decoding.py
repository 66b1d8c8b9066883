"""`transloom tune-decoding`: scores of all settings, and the recommended setting."""

import json
import shutil

import pytest
import sacrebleu
from support.invocation import invoke
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder
from transloom.inference import tuned_decoding
from transloom.inference.translator import Translator
from transloom.inference.tuned_decoding import DecodingPoint, TunedDecoding, recommended_point

GRID = ["--beam-sizes", "1,3", "--length-penalties", "0,1,3"]


@pytest.fixture(scope="module")
def run(untrained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(untrained_run.path, folder)
    return folder


@pytest.fixture(scope="module")
def tuned(run):
    told = invoke(
        "tune-decoding",
        run,
        *GRID,
        "--checkpoints",
        "newest,last:2,2",
        "--metric",
        "chrf",
        "--json",
    )
    return json.loads(told.stdout)


@pytest.mark.long
def test_the_score_of_each_point_equals_that_of_translated_text(run, tuned, phrasebook):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    heldout = load_heldout(store, manifest, "validation")
    names = [(p["checkpoint"], p["beam_size"], p["length_penalty"]) for p in tuned["points"]]
    assert names == [
        (checkpoint, beam, alpha)
        for checkpoint in ("step-00000002", "average-of-1-2")
        for beam in (1, 3)
        for alpha in (0.0, 1.0, 3.0)
    ]
    for checkpoint, name in (("2", "step-00000002"), ("average-of-1-2", "average-of-1-2")):
        translator = Translator.load(run, checkpoint)
        translator.decoding = translator.decoding.model_copy(
            update={"beam_size": 3, "length_penalty": 3.0}
        )
        expected = sacrebleu.CHRF().corpus_score(
            translator.translate(heldout.texts["src"]), [heldout.texts["tgt"]]
        )
        (found,) = (
            point["score"]
            for point in tuned["points"]
            if (point["checkpoint"], point["beam_size"], point["length_penalty"]) == (name, 3, 3.0)
        )
        assert found == expected.score
    assert tuned["sources_sha256"] == manifest.heldout["validation"].files["src"].sha256


def test_the_recommendation_is_among_the_points_as_good_as_the_best(tuned):
    points = [DecodingPoint.model_validate(point) for point in tuned["points"]]
    assert tuned["best"]["score"] == max(point.score for point in points)
    assert DecodingPoint.model_validate(tuned["best"]).as_good_as_best
    chosen = recommended_point(points, tuned["recipe"]["length_penalty"])
    assert tuned["recommended"] == chosen.model_dump()


@pytest.mark.parametrize(
    ("usual", "expected"), [(1.0, (2, 1.0, 29.8)), (2.6, (2, 3.0, 29.9)), (0.0, (2, 1.0, 29.8))]
)
def test_the_smallest_beam_and_nearest_penalty_are_recommended(usual, expected):
    """All points that are not significantly worse than the best are candidates."""
    tried = [
        ("a", 1, 1.0, 25.0, 0.001),
        ("a", 2, 0.0, 28.0, 0.01),
        ("a", 2, 1.0, 29.7, 0.3),
        ("b", 2, 1.0, 29.8, 0.4),
        ("b", 2, 3.0, 29.9, 0.6),
        ("b", 5, 1.0, 30.0, 1.0),
    ]
    points = [
        DecodingPoint(checkpoint=name, beam_size=beam, length_penalty=alpha, score=score, p=p)
        for name, beam, alpha, score, p in tried
    ]
    chosen = recommended_point(points, usual)
    assert (chosen.beam_size, chosen.length_penalty, chosen.score) == expected


def test_a_point_has_the_ratio_of_translated_to_reference_length(run, tuned, phrasebook):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    texts = load_heldout(store, manifest, "validation").texts
    point = tuned["points"][0]
    translator = Translator.load(run, "2")
    translator.decoding = translator.decoding.model_copy(
        update={"beam_size": point["beam_size"], "length_penalty": point["length_penalty"]}
    )
    found = "".join(translator.translate(texts["src"]))
    assert point["length_ratio"] == len(found) / len("".join(texts["tgt"]))


def test_the_results_are_stored_in_the_run(run, tuned):
    file = RunFolder(run).tuned_decoding
    assert tuned.pop("file") == str(file)
    record = TunedDecoding.model_validate_json(file.read_text())
    assert record.model_dump(mode="json") == tuned
    assert record.version == 1
    assert set(record.checkpoints) == {"step-00000002", "average-of-1-2"}


def test_tune_decoding_prints_a_table_and_lines_for_the_recipe(run):
    """With a beam of 1, all length penalties are equally good, so the recipe's is printed."""
    grid = ["--beam-sizes", "1", "--length-penalties", "0.6,1"]
    told = invoke("tune-decoding", run, *grid, "--metric", "bleu_literature").output
    assert "BLEU of lower-cased Moses tokens on validation" in told
    assert "Multi30k" not in told
    assert "moses lower-cased, normalised, tokenised; nrefs:1|case:mixed|eff:no|tok:none" in told
    assert "decoding:\n  beam_size: 1\n  length_penalty: 0.6\n" in told  # the recipe's value
    assert "2 of 2 combinations (≈)" in told
    assert f"transloom translate {run} --checkpoint 2 --beam-size 1 --length-penalty 0.6" in told


def point(beam_size, length_penalty, p=1.0):
    return DecodingPoint(
        checkpoint="step-1", beam_size=beam_size, length_penalty=length_penalty, score=1.0, p=p
    )


def test_a_best_point_at_the_edge_of_the_grid_is_reported(tuned):
    tuned.pop("file", None)
    record = TunedDecoding.model_validate(tuned)
    points = [point(3, 0.0), point(3, 2.0)]
    edge = record.model_copy(update={"points": points, "best": points[1]})
    assert edge.at_the_edge
    assert not record.model_copy(update={"points": points, "best": points[0]}).at_the_edge


def test_tune_decoding_refuses_a_test_set(run):
    told = invoke("tune-decoding", run, "--set", "phrasebook", code=2).output
    assert "expected validation" in " ".join(told.replace("│", " ").split())


def test_tune_decoding_refuses_a_validation_set_equal_to_a_test_set(run, phrasebook):
    _, manifest = open_dataset(tiny_recipe(phrasebook).data)
    twice = {"validation": manifest.heldout["phrasebook"]}
    same = manifest.model_copy(update={"heldout": manifest.heldout | twice})
    with pytest.raises(RunMismatchError, match="has the same sources as its test set phrasebook"):
        tuned_decoding._require_apart(same)


@pytest.mark.parametrize(
    ("checkpoints", "problem"),
    [
        ("last:3", "has only 2 of the 3 checkpoints"),
        ("first:3", "'first:3' names no checkpoints"),
        ("best", r"has no best checkpoint: none of its checkpoints \(1, 2\)"),
        ("7", "no checkpoint of step 7"),
    ],
)
def test_tune_decoding_refuses_checkpoints_that_the_run_lacks(run, checkpoints, problem):
    with pytest.raises(CheckpointError, match=problem):
        invoke("tune-decoding", run, "--checkpoints", checkpoints)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--beam-sizes", "0,4"), ("--beam-sizes", "two"), ("--length-penalties", "nan")],
)
def test_tune_decoding_refuses_invalid_grid_values(run, option, value):
    assert option in invoke("tune-decoding", run, option, value, code=2).output
