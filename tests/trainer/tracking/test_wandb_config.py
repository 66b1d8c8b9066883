"""Facts of a run that are sent to W&B in addition to its recipe."""

import json
from functools import partial

from support.recipes import tiny_recipe
from support.records.checkpoints import make_header

from data_pipeline.dataset.manifest import open_dataset
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.format import HEADER, Parent
from run_store.folder import RunFolder, RunMetadata
from run_store.record.run_status_model import RunStatus
from run_store.start import Claim, Code, Invocation, Start
from trainer.process.placement import Placement
from trainer.tracking.wandb_config import facts_for_wandb


def made_run(run, recipe, **card):
    """Make a run folder, and return its facts as a function of a checkpoint."""
    run.path.mkdir()
    known = RunMetadata(id="abcd1234", name="r", dataset_identity="", identity={}, **card)
    run.card_path.write_text(known.model_dump_json())
    _, manifest = open_dataset(recipe.data)
    return partial(facts_for_wandb, run, manifest.header(), Placement(world_size=4))


def test_dataset_start_and_lineage_are_reported(tmp_path, phrasebook):
    run, recipe = RunFolder(tmp_path / "run"), tiny_recipe(phrasebook)
    parent = Parent(run_id="ffff0000", step=40, sha256="a" * 64)
    facts_of = made_run(run, recipe, parent=parent)
    code = Code(commit="c" * 40, dirty=True)
    start = Start(
        since="2026-01-01T00:00:00+00:00",
        invocation=Invocation(command="transloom train tiny.yaml", project=code),
        claim=Claim(owner="ada"),
        code=None,
        versions={"torch": "2.13.0"},
    )
    run.status.write_text(RunStatus(start=start).model_dump_json())
    folder = run.checkpoints / "step-00000007"
    folder.mkdir(parents=True)
    (folder / HEADER).write_text(make_header(7).to_json())
    _, manifest = open_dataset(recipe.data)
    facts = facts_of(Checkpoint(folder))
    assert facts["start"] == {
        "ranks": 4,
        "device": "cpu",
        "resumed_from": {"step": 7, "sha256": sha256_of(folder / HEADER)},
        "parent": {"run_id": "ffff0000", "step": 40, "sha256": "a" * 64},
        "since": "2026-01-01T00:00:00+00:00",
        "invocation": {
            "command": "transloom train tiny.yaml",
            "project": {"commit": "c" * 40, "dirty": True},
        },
        "job": None,
        "claim": Claim(owner="ada").model_dump(mode="json"),
        "code": None,
        "versions": {"torch": "2.13.0"},
    }
    dataset = facts["dataset"]
    (corpus,) = manifest.corpora
    assert dataset["identity"] == manifest.identity
    assert dataset["shards"] == len(manifest.shards)
    assert dataset["cleaning"][corpus.name] == {
        "read": corpus.read,
        "kept": corpus.kept,
        "dropped": corpus.dropped,
    }
    assert dataset["fields"]["src"]["language"] == "fr"
    assert dataset["heldout"]["phrasebook"]["sha256"].keys() == {"src", "tgt"}
    json.dumps(facts, allow_nan=False)


def test_a_run_with_an_unreadable_status_and_no_checkpoint_still_has_facts(tmp_path, phrasebook):
    run = RunFolder(tmp_path / "run")
    facts_of = made_run(run, tiny_recipe(phrasebook))
    run.status.write_text('{"version": 9}')
    assert facts_of(None)["start"] == {
        "ranks": 4,
        "device": "cpu",
        "resumed_from": None,
        "parent": None,
    }
