"""Frames of probe sentences during training: steps, ranks, and errors."""

from types import SimpleNamespace

import pytest
from support.records.moments import made_probe

from model.errors import ModelError
from run_store.record.time_lapse import path_of, read_frame
from trainer.training.prober import Prober


@pytest.fixture
def probed(tmp_path):
    """Return a factory of probers, their folder, the probed sentences, and the notices."""
    said, asked = [], []

    def probe(network, sentence):
        asked.append((network, sentence))
        return made_probe(sentence.upper(), sentence)

    def make(folder=tmp_path, sentences=("one", "two"), probe=probe):
        supervision = SimpleNamespace(notice=said.append)
        return Prober(SimpleNamespace(probe=probe), sentences, folder, None, supervision)

    return SimpleNamespace(make=make, folder=tmp_path, said=said, asked=asked)


def test_prober_writes_all_sentences_of_a_step_to_one_file(probed):
    probed.make().take("network", 4)
    assert probed.asked == [("network", "one"), ("network", "two")]
    (path,) = probed.folder.iterdir()
    moment = read_frame(path_of(probed.folder, 4))
    assert (moment.step, [probe.output for probe in moment.probes]) == (4, ["ONE", "TWO"])
    assert path == path_of(probed.folder, 4)
    assert probed.said == []


def test_frames_are_due_at_some_steps_and_never_without_sentences(probed):
    due = [step for step in range(20) if probed.make().is_due(step)]
    assert due == [0, 1, 2, 3, 4, 6, 8, 12, 16]
    assert not any(probed.make(sentences=()).is_due(step) for step in range(20))


def test_ranks_without_a_folder_write_no_frames_at_due_steps(probed):
    prober = probed.make(folder=None)
    assert prober.is_due(4)
    prober.take("network", 4)
    assert (probed.asked, list(probed.folder.iterdir())) == ([], [])


@pytest.mark.parametrize("error", [ModelError("too long"), OSError("the disk is full")])
def test_a_frame_that_cannot_be_saved_does_not_end_the_run(probed, error):
    def fail(network, sentence):
        raise error

    probed.make(probe=fail).take("network", 4)
    assert probed.said == [f"the time-lapse frame of step 4 cannot be saved: {error}"]
    assert list(probed.folder.iterdir()) == []


def test_a_programming_error_in_a_probe_is_raised(probed):
    def fail(network, sentence):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        probed.make(probe=fail).take("network", 4)
