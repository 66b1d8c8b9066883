"""Scores as the literature computes them."""

import pytest

from trainer.evaluation import moses


@pytest.mark.parametrize(("language", "differing"), [("de", 0), ("fr", 1)])
def test_our_moses_is_the_one_of_the_multi30k_task(multi30k, language, differing):
    """The task's own preparation of the test set; in French one line has a quoted title where
    Moses's scripts moved the full stop."""
    raw = (multi30k / f"test_2016_flickr.{language}").read_text().split("\n")[:-1]
    prepared = (multi30k / f"test_2016_flickr.lc.norm.tok.{language}").read_text().split("\n")[:-1]
    ours = moses(raw, language)
    assert sum(a != b for a, b in zip(ours, prepared, strict=True)) == differing
