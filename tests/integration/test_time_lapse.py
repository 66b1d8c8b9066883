"""Probe sentences of a run are recorded once per step and do not change its curve."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cluster.processes import wait_until
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.runs import Runs

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.folder import RunFolder
from run_store.record.time_lapse import path_of, read_time_lapse
from trainer.tasks.probing import probe
from trainer.training.prober import Prober
from transloom.inference.translator import Translator

pytestmark = pytest.mark.long

SENTENCES = ["elle est grande", "le chat dort 漢"]
PROBES = f"tracking.probe_sentences={SENTENCES}"
SHAPES = {
    "stage 0": {"engine": {"zero_stage": 0}},
    "stage 2, exact": {"engine": {"zero_stage": 2, "numerics": "exact"}},
    "stage 3, average": {"engine": {"zero_stage": 3}, "ema_decay": 0.9},
}


def runs_of(folder, dataset, **changes):
    """Return runs of eight steps, which train in this process."""
    values = tiny_values(dataset, max_steps=8)
    values["decoding"] = SHORT_TRANSLATIONS
    values["checkpoints"]["every_steps"] = 2
    values["model"]["attention_dropout"] = 0.1
    values["engine"] = changes.get("engine", values["engine"])
    values["trainer"]["ema_decay"] = changes.get("ema_decay", 0.0)
    file = write_yaml(folder / "tiny.yaml", values)
    return Runs(file, folder, address="")


def moments_of(folder):
    found = read_time_lapse(RunFolder(folder).time_lapse)
    assert found.problems == ()
    return {moment.step: moment for moment in found.moments}


def bits_of(run):
    """Return the hashes of all files of the newest checkpoint, and its step."""
    header = Checkpoint(list_checkpoints(RunFolder(run).checkpoints)[-1]).header
    return [file.sha256 for file in header.files], header.step


@pytest.mark.parametrize("shape", SHAPES)
def test_probe_sentences_do_not_change_any_bit_of_a_run(tmp_path, phrasebook, shape):
    runs = runs_of(tmp_path, phrasebook, **SHAPES[shape])
    runs.train("without", inline=True)
    runs.train("with", PROBES, inline=True)
    assert runs.curve("with") == runs.curve("without")
    assert bits_of(runs.folder / "with") == bits_of(runs.folder / "without")
    norms = [[line["grad_norm"] for line in runs.lines(name)] for name in ("with", "without")]
    assert norms[0] == norms[1]
    assert not (runs.folder / "without" / "time-lapse").exists()
    moments = moments_of(runs.folder / "with")
    assert list(moments) == [0, 1, 2, 3, 4, 6, 8]
    # Probes use the weights with which a checkpoint translates: the moving average, if kept.
    translator = Translator.load(runs.folder / "with", 8)
    source, target = translator.tokenizers[0], translator.tokenizers[-1]
    for found, sentence in zip(moments[8].probes, SENTENCES, strict=True):
        assert found == probe(translator.model, source, target, sentence)
        assert found.source == tuple(translator.source_texts(sentence))


def test_a_resumed_run_replaces_the_probes_of_repeated_steps(tmp_path, phrasebook):
    runs = runs_of(tmp_path, phrasebook)
    runs.train("whole", PROBES, inline=True)
    runs.train("run", PROBES, "trainer.max_steps=5", inline=True)
    folder = RunFolder(runs.folder / "run")
    for newer in list_checkpoints(folder.checkpoints)[1:]:  # checkpoints 4 and 5 are lost
        shutil.rmtree(newer)
    early = {path.name: path.stat().st_ino for path in folder.time_lapse.iterdir()}
    runs.train("run", PROBES, inline=True)
    assert moments_of(folder.path) == moments_of(runs.folder / "whole")
    kept = {n: (folder.time_lapse / n).stat().st_ino == early[n] for n in sorted(early)}
    assert list(kept.values()) == [True, True, True, False, False]  # 3 and 4 are replaced
    assert runs.curve("run") == runs.curve("whole")


def test_an_unwritable_time_lapse_causes_a_notice_and_stops_nothing(tmp_path, phrasebook):
    runs = runs_of(tmp_path, phrasebook)
    run = runs.folder / "run"
    run.mkdir()
    (run / "time-lapse").write_text("in the way")
    runs.train("run", PROBES, "trainer.max_steps=2", inline=True)
    assert len(runs.curve("run")) == 2
    assert "the time-lapse frame of step 2 cannot be saved" in (run / "log.txt").read_text()


def test_a_killed_run_keeps_the_probes_of_each_step_once(tmp_path, phrasebook):
    """The run is killed right after it has recorded probes of steps that it must repeat."""
    runs = runs_of(tmp_path, phrasebook)
    options = [PROBES, "trainer.max_steps=64", "checkpoints.every_steps=10"]
    folder = RunFolder(runs.folder / "run")
    command = [Path(sys.executable).parent / "transloom", "train", runs.recipe, *options]
    process = subprocess.Popen([*command, "--inline", "--run", folder.path])
    wait_until(
        lambda: list_checkpoints(folder.checkpoints) and path_of(folder.time_lapse, 12).exists()
    )
    process.kill()
    process.wait()
    assert len(runs.curve("run")) < 64, "it was over before it was killed"
    runs.train("run", *options, inline=True)
    runs.train("whole", *options, inline=True)
    assert moments_of(folder.path) == moments_of(runs.folder / "whole")
    assert list(moments_of(folder.path))[-4:] == [24, 32, 48, 64]
    assert runs.curve("run") == runs.curve("whole")
    assert [event["event"] for event in runs.lines("run", "event")] == ["resumed"]


def test_ranks_other_than_0_compute_no_probes(tmp_path):
    """They only help to gather the weights for rank 0."""
    prober = Prober(None, SENTENCES, None, None, None)
    assert [step for step in range(9) if prober.is_due(step)] == [0, 1, 2, 3, 4, 6, 8]
    prober.take(None, 8)
    assert not any(Prober(None, (), tmp_path, None, None).is_due(step) for step in range(9))
