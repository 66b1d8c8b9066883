"""One recipe gives one curve, for any number of ranks, with Ray and without.

Other shapes are tested in test_elastic.py (the ranks change), test_placement.py (three ranks) and
test_data_workers.py (one rank with Ray).
"""

import pytest


def test_1_and_2_ranks_have_the_same_data_and_curve(one_rank, undisturbed):
    """The run has 60 steps of 5 micro-batches, which 2 ranks do not divide evenly."""
    reference, lines = one_rank.lines("one-rank"), undisturbed.lines("undisturbed")
    assert [line["step"] for line in reference] == list(range(1, 61))
    assert reference[-1]["loss"] < 0.8 * reference[0]["loss"]
    assert [line["world_size"] for line in lines] == [2] * 60
    assert undisturbed.digests("undisturbed") == one_rank.digests("one-rank")
    assert undisturbed.curve("undisturbed") == pytest.approx(one_rank.curve("one-rank"), rel=1e-5)
    for name in ("target_tokens", "model_flops", "hardware_flops"):
        assert [line[name] for line in lines] == [line[name] for line in reference]
    for line in lines:
        each = line["tflops_per_second_per_rank"]
        assert line["tflops_per_second"] == pytest.approx(2 * each)
