"""time-lapse/: which steps are probed, and how its files are read."""

import json

import numpy as np
import pytest
from support.records.moments import made_probe

from run_store.record.time_lapse import (
    LIMITS,
    MAX_FRAMES,
    TimeLapseFrame,
    is_probed,
    most_attended,
    path_of,
    read_time_lapse,
    table_of,
    write_frame,
)


def test_probed_steps_are_powers_of_two_and_three_times_powers_of_two():
    found = [step for step in range(1000) if is_probed(step)]
    expected = {0, *(2**n for n in range(10)), *(3 * 2**n for n in range(9))}
    assert found == sorted(step for step in expected if step < 1000)
    # The number of files that a reader opens is bounded for any length of a run.
    assert MAX_FRAMES > 1 + 63 + 62
    assert is_probed(2**62)
    assert not is_probed(2**62 + 3)


def test_written_frames_are_read_back_one_per_step(tmp_path):
    folder = tmp_path / "time-lapse"
    for step, output in ((0, "the the"), (96, "early"), (2, "she"), (96, "she is \u202e here")):
        write_frame(folder, TimeLapseFrame(step=step, probes=(made_probe(output),)))
    found = read_time_lapse(folder)
    assert [moment.step for moment in found.moments] == [0, 2, 96]
    assert found.moments[-1].probes[0].output == "she is \u202e here"
    assert "\u202e" not in path_of(folder, 96).read_text()  # terminals get no control characters
    assert [moment.step for moment in read_time_lapse(folder, last_step=95).moments] == [0, 2]
    assert found.problems == ()


def test_attention_weights_are_stored_in_steps_of_a_255th():
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 2))
    probe = made_probe("a", weights=weights)
    found = probe.attention[-1].bytes_hts / 255
    assert np.abs(found - weights).max() <= 0.5 / 255 + 1e-9
    assert most_attended(probe) == [("a", probe.source[weights.mean(axis=0)[0].argmax()])]


def test_a_table_has_a_row_for_each_sentence_of_each_frame():
    weights = np.array([[[0.1, 0.7, 0.2], [0.0, 0.0, 1.0]]])
    moments = [
        TimeLapseFrame(step=step, probes=(made_probe("a", weights=weights),)) for step in (0, 1)
    ]
    assert table_of(moments) == [[step, "je suis", "a", "a→▁suis"] for step in (0, 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"more": 1}, "more"),
        ({"step": -1}, "step"),
        ({"probes": [{}] * 5}, "probes"),
    ],
)
def test_an_invalid_frame_is_reported_and_the_others_are_read(tmp_path, change, said):
    for step in (1, 2, 3):
        path = write_frame(tmp_path / "lapse", TimeLapseFrame(step=step, probes=(made_probe("a"),)))
    path_of(tmp_path / "lapse", 2).write_text(json.dumps(json.loads(path.read_text()) | change))
    found = read_time_lapse(tmp_path / "lapse")
    assert [moment.step for moment in found.moments] == [1, 3]
    (problem,) = found.problems
    assert "step-00000002.json is not a frame" in problem
    assert said in problem


def test_an_attention_map_whose_shape_does_not_match_its_pieces_is_refused(tmp_path):
    path = write_frame(tmp_path / "lapse", TimeLapseFrame(step=1, probes=(made_probe("a"),)))
    values = json.loads(path.read_text())
    for shape, said in (([1, 2, 9], "weights have"), ([2, 3, 2], "has the shape")):
        values["probes"][0]["attention"][0]["shape"] = shape
        path.write_text(json.dumps(values))
        assert said in read_time_lapse(tmp_path / "lapse").problems[0]


def test_a_frame_file_above_the_size_limit_is_not_read(tmp_path):
    (tmp_path / "step-00000001.json").write_bytes(b"1" * (LIMITS.bytes + 1))
    assert "expected at most" in read_time_lapse(tmp_path).problems[0]


def test_a_missing_folder_is_an_empty_time_lapse(tmp_path):
    assert read_time_lapse(tmp_path / "none").moments == ()
