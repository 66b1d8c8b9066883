"""beam_tree.js compared with the Python search: continuations kept, ended and pruned by step."""

import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import torch
from support.live_model import ask

from data_pipeline.storage.phrasebook import phrasebook_pairs
from model.generation import search
from model.generation.search import beam_search, greedy_search
from model.generation.search_state import SearchState
from transloom.inference.translator import Translator
from transloom.observe.explain.live.packing import packed

pytestmark = pytest.mark.long

CLOSE = {"rel": 1e-5, "abs": 1e-5}


@dataclass
class Step:
    """A step of a sentence's search: the ids and log-probability of each continuation."""

    looked_at: list[tuple[tuple[int, ...], float]]
    ended: list[tuple[tuple[int, ...], float]] = field(default_factory=list)
    kept: list[tuple[tuple[int, ...], float]] = field(default_factory=list)


class Watched(SearchState):
    """A search state that records the steps of each sentence, by the sentence's number."""

    seen: defaultdict[int, list[Step]]

    def best_continuations(self, count):
        best = super().best_continuations(count)
        for row, number in enumerate(self.indices):
            before = self.tokens_bkp[row, :, 1:].tolist()
            looked_at = [
                ((*before[parent], token), score)
                for score, parent, token in zip(*(one[row].tolist() for one in best), strict=True)
                if score > -torch.inf
            ]
            Watched.seen[number].append(Step(looked_at))
        return best

    def finish(self, rows, parents, scores, found):
        before = self.tokens_bkp[rows, parents, 1:].tolist()
        for row, ids, score in zip(rows, before, scores.tolist(), strict=True):
            ended = (*ids, self.vocabulary.eos_id), score
            Watched.seen[self.indices[row]][-1].ended.append(ended)
        super().finish(rows, parents, scores, found)

    def advance(self, parents_bk, tokens_bk, scores_bk):
        super().advance(parents_bk, tokens_bk, scores_bk)
        for row, number in enumerate(self.indices):
            ids, scores = self.tokens_bkp[row, :, 1:].tolist(), self.scores_bk[row].tolist()
            Watched.seen[number][-1].kept = [
                (tuple(one), score)
                for one, score in zip(ids, scores, strict=True)
                if score > -torch.inf
            ]


@pytest.fixture
def steps_of(monkeypatch):
    """Return a function that runs beam and greedy search: both results, and the beam's steps."""

    def searched(made, sources, beam, alpha, prefixes=None):
        pad = made.model.vocabulary.pad_id
        decoding = made.decoding.model_copy(update={"beam_size": beam, "length_penalty": alpha})
        batch, given = (
            torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(one, dtype=torch.long) for one in some], True, pad
            )
            for some in (sources, prefixes or [[] for _ in sources])
        )
        Watched.seen = defaultdict(list)
        with monkeypatch.context() as patch:
            patch.setattr(search, "SearchState", Watched)
            found = beam_search(made.model, batch, decoding, given)
        seen = Watched.seen
        return found, greedy_search(made.model, batch, decoding, given), seen

    return searched


def same(tree, found, greedy, steps):
    """Assert that the page's tree has the continuations, scores and fates of the search."""
    assert len(tree["steps"]) == len(steps)
    assert [tuple(one["ids"]) for one in tree["found"]] == [one.ids for one in found]
    assert [one["score"] for one in tree["found"]] == pytest.approx(
        [one.score for one in found], **CLOSE
    )
    for last, (nodes, step) in enumerate(zip(tree["steps"], steps, strict=True), start=1):
        kept = "left" if last == len(steps) else "kept"
        for expected, fates in (
            (step.looked_at, (kept, "ended", "pruned")),
            (step.kept, (kept,)),
            (step.ended, ("ended",)),
        ):
            chosen = [node for node in nodes if node["fate"] in fates]
            assert [tuple(node["ids"]) for node in chosen] == [ids for ids, _ in expected]
            sums = [node["sum"] for node in chosen]
            assert sums == pytest.approx([score for _, score in expected], **CLOSE)
        assert all(node["parent"] == node["ids"][:-1] for node in nodes)
    assert tuple(tree["greedy"]["ids"][:-1]) == greedy.ids
    assert tree["greedy"]["score"] == pytest.approx(greedy.score, **CLOSE)
    assert tuple(tree["best"][:-1]) == found[0].ids


@pytest.fixture
def made(one_rank):
    return Translator.load(one_rank.folder / "one-rank")


def sentences():
    """Return sentences of the test set, and sequences of random words."""
    draw = random.Random(5)
    plain = [pair[0] for pair in phrasebook_pairs("test")[:60]]
    words = " ".join(plain).split()
    return plain + [" ".join(draw.choices(words, k=draw.randrange(1, 8))) for _ in range(60)]


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.6), (4, 0.6), (3, 0.0), (6, 1.5)])
def test_every_step_of_the_tree_equals_the_searchs_step(beam, alpha, made, steps_of, tmp_path):
    sources = [made.source_ids(sentence) for sentence in ["", *sentences()]]
    asked = {"sources": sources, "beam": beam, "alpha": alpha}
    (trees,) = ask(packed(made), tmp_path, ("trees", asked))
    found, greedy, seen = steps_of(made, sources, beam, alpha)
    for number, tree in enumerate(trees):
        same(tree, found[number], greedy[number], seen[number])
    fates = {node["fate"] for tree in trees for nodes in tree["steps"] for node in nodes}
    assert {"kept", "ended", "pruned"} <= fates
    assert any(tree["greedy"]["parts"] for tree in trees) == (beam > 1)


def test_a_tree_with_a_forced_prefix_equals_the_searchs_steps(made, steps_of, tmp_path):
    """The prefixes are random nodes of the trees without a prefix."""
    sources = [made.source_ids(sentence) for sentence in sentences()[:40]]
    asked = {"sources": sources, "beam": 4, "alpha": 0.6}
    (free,) = ask(packed(made), tmp_path, ("trees", asked))
    draw, eos = random.Random(6), made.model.vocabulary.eos_id
    prefixes = [
        [one for one in draw.choice(draw.choice(tree["steps"]))["ids"] if one != eos]
        for tree in free
    ]
    (trees,) = ask(packed(made), tmp_path, ("trees", {**asked, "prefixes": prefixes}))
    found, greedy, seen = steps_of(made, sources, 4, 0.6, prefixes)
    for number, (tree, prefix) in enumerate(zip(trees, prefixes, strict=True)):
        same(tree, found[number], greedy[number], seen[number])
        forced = [nodes[0]["ids"][-1] for nodes in tree["steps"] if nodes[0]["forced"]]
        assert forced == prefix
        assert all(len(nodes) == 1 for nodes in tree["steps"][: len(prefix)])


def test_the_tree_marks_where_greedy_search_differs_from_the_best(made, tmp_path):
    sources = [made.source_ids(sentence) for sentence in sentences()]
    asked = {"sources": sources, "beam": 4, "alpha": 0.6}
    (trees,) = ask(packed(made), tmp_path, ("trees", asked))
    for tree in trees:
        best, greedy = tree["best"], tree["greedy"]
        pairs = zip(best, greedy["ids"], strict=False)
        differs = [n for n, (a, b) in enumerate(pairs, start=1) if a != b]
        assert greedy["parts"] == (differs[0] if differs else None)
        looked_at = {tuple(node["ids"]) for nodes in tree["steps"] for node in nodes}
        prefixes = [tuple(greedy["ids"][:n]) for n in range(1, len(greedy["ids"]) + 1)]
        inside = [one for one in prefixes if one in looked_at]
        assert [tuple(one) for one in greedy["way"]] == inside
        assert greedy["lost"] == (len(inside) + 1 if len(inside) < len(prefixes) else None)
    assert any(tree["greedy"]["parts"] for tree in trees)


def test_the_table_of_a_tree_names_every_node_and_its_parent(made, tmp_path):
    (tree,) = ask(
        packed(made),
        tmp_path,
        ("trees", {"sources": [made.source_ids("je suis")], "beam": 3, "alpha": 0.6}),
    )[0]
    head, *lines = tree["csv"]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert len(rows) == 1 + sum(len(nodes) for nodes in tree["steps"])
    for row in rows[1:]:
        parent = rows[row["parent"]]
        assert parent["step"] == row["step"] - 1
        assert row["sum"] == pytest.approx(parent["sum"] + row["log-probability"])
        assert (row["score"] is not None) == (row["fate"] == "ended")
        if row["fate"] == "ended":
            penalty = ((5 + row["step"]) / 6) ** 0.6
            assert row["score"] == pytest.approx(row["sum"] / penalty)
