"""Drawings of matrix products: matching shapes, and the highlighted row and column."""

import re

import pytest
from support.live_model import ask

from transloom.observe.explain.live.packing import packed

# The keys of all tensors that are matrix products.
PRODUCTS = re.compile(
    r"(queries_htd|keys_hsd|values_hsd|scores_hts|mix_htd|inner_tf|logits_tv"
    r"|(attention|feed_forward)\.output_tm)$"
)
CELLS = [[0, 0, 0], [3, 2, 5], [1, 3, 1]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "pre", "output_bias": True, "share_embeddings": "none"},
        {"positions": "rotary", "activation": "swiglu", "key_value_heads": 2},
    ],
)
def test_shapes_match_and_row_and_column_of_a_cell_are_marked(translator_of, tmp_path, settings):
    translator = translator_of(**settings)
    source = translator.source_ids("elle sera journaliste")
    target = [translator.model.vocabulary.bos_id, 9, 8, 7]
    question = ("products", {"source": source, "target": target, "cells": CELLS})
    (found,) = ask(packed(translator), tmp_path, question)
    drawn = set()
    for one in found:
        cell, parts = one["cell"], one["product"]
        assert bool(parts) == bool(PRODUCTS.search(cell["key"])), cell
        if not parts:
            continue
        drawn.add(cell["key"].split(".")[-1])
        place = parts.index("·")
        left, right = parts[place - 1], parts[place + 1]
        (equals,) = [n for n, p in enumerate(parts) if isinstance(p, str) and p.endswith("=")]
        result = parts[equals + 1]
        assert [result["rows"], result["columns"]] == one["shape"]
        assert (result["row"], result["column"]) == (cell["row"], cell["column"])
        assert left["columns"] == right["rows"]
        assert (left["rows"], right["columns"]) == (result["rows"], result["columns"])
        assert (left["row"], left["column"]) == (cell["row"], None)
        assert (right["row"], right["column"]) == (None, cell["column"])
        if not one["masked"]:
            assert left["columns"] == one["terms"]
        for n, part in enumerate(parts):
            if isinstance(part, str) and part.startswith("transposed"):
                turned = parts[n - 1]
                assert (turned["columns"], turned["rows"]) == (right["rows"], right["columns"])
                assert turned["row"] == cell["column"]
        biases = [part for part in parts if not isinstance(part, str) and part["name"] == "b"]
        if biases:
            assert [(b["rows"], b["columns"], b["column"]) for b in biases] == [
                (1, result["columns"], cell["column"])
            ]
    assert len(drawn) == 8


def test_the_division_of_scores_is_not_drawn_if_switched_off(translator_of, tmp_path):
    translator = translator_of()
    source = translator.source_ids("je")
    given = {"source": source, "target": [translator.model.vocabulary.bos_id], "cells": [[0, 0, 0]]}
    questions = [("products", given), ("products", {**given, "switches": {"scaledScores": False}})]
    for found, sign in zip(
        ask(packed(translator), tmp_path, *questions), ("/ √8 =", "="), strict=True
    ):
        (scores,) = [
            o for o in found if o["cell"]["key"] == "encoder.layers.0.self_attention.scores_hts"
        ]
        assert sign in scores["product"]
