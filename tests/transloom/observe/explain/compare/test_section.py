"""The section of a page that compares two models, and `transloom explain --against`."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.explained_page import PageReader
from support.invocation import invoke

from run_store.errors import CheckpointError, RunMismatchError
from transloom.inference.translator import Translator
from transloom.observe.explain.compare.comparison import compare
from transloom.observe.explain.compare.section import compare_section, names_of
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live import packing
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.page import PageSection
from transloom.observe.explain.translation_page import translation_page

SENTENCE = "</script> <b>je</b> {{model}} <!-- size -->"


def command(*arguments):
    return invoke("explain", *arguments, code=None).stdout


def test_explain_against_compares_two_checkpoints_of_a_run(untrained_run, tmp_path):
    file = tmp_path / "page.html"
    said = json.loads(
        command(untrained_run.path, "je suis", "--against", "@1", "--output", file, "--json")
    )
    assert said["compared"] == ["tiny@2", "tiny@1"]
    assert said["does_not_fit"] == []
    text = file.read_text(encoding="utf-8")
    page = PageReader(text)
    assert "tiny@2" in page.sections[2].text
    assert f"This page has {len(text.encode()) / 1e6:.1f} MB" in page.sections[2].text
    assert "numbered by chance" not in page.sections[2].text  # heads of one run are comparable
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert sections[1:3] == ["live", "compare"]
    (walk,) = [data for _, data in page.sections[0].figures if "places" in data]
    assert [link["place"] for link in walk["places"]][:2] == ["live", "compare"]
    spoken = command(untrained_run.path, "je suis", "--against", f"{untrained_run.path}@1")
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    assert f"the page compares tiny@2 and tiny@1, and has {size}" in spoken


def test_explain_against_refuses_a_missing_checkpoint_or_run(untrained_run, tmp_path):
    with pytest.raises(CheckpointError):
        command(untrained_run.path, "je", "--against", "@7")
    with pytest.raises(RunMismatchError):
        command(untrained_run.path, "je", "--against", tmp_path / "nothing-here")


@pytest.mark.long
@pytest.mark.parametrize("largest", [5_000_000, 10])
def test_the_page_contains_both_models_unless_one_is_too_large(translator_of, monkeypatch, largest):
    both = [translator_of(seed) for seed in (0, 1)]
    live = live_section(both[0], SENTENCE, None)
    monkeypatch.setattr(packing, "MOST_WEIGHTS", largest)
    section, misfits = compare_section(both, ["one", "<b>other"], SENTENCE, None, live)
    assert misfits == []
    page = PageReader(translation_page(explain(both[0], SENTENCE), "x", live, section))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert SENTENCE in page.sections[2].text
    assert "<b>other" in page.sections[2].text
    data = [data for _, data in page.sections[2].figures]
    found = compare(both, ["one", "<b>other"], SENTENCE, None)
    assert data[0]["sides"][1]["translation"] == found.sides[1].translation
    assert ("compared-model" in ids) == (len(data) == 2) == (largest > 10)
    if largest == 10:
        assert "the second model cannot run in a page: it has" in page.sections[2].text


def test_a_comparison_without_a_live_section_has_all_its_scripts(translator_of):
    both = [translator_of(seed) for seed in (0, 1)]
    alone, _ = compare_section(both, ["one", "other"], "je", None, None)
    live = live_section(both[0], "je", None)
    assert isinstance(live, PageSection)
    beside, _ = compare_section(both, ["one", "other"], "je", None, live)
    explained = explain(both[0], "je")
    pages = [translation_page(explained, "x", *both) for both in ((None, alone), (live, beside))]
    for needed in ("function heatMap(", "function formatPrecise(", "function fullNameOf("):
        assert [page.count(needed) for page in pages] == [1, 1]
    assert ".live .steps td.agrees" in alone.style
    assert [page.count(".candidate.chosen {") for page in pages] == [1, 1]
    assert "the first model cannot run" in alone.html


def test_models_are_named_as_on_the_command_line(untrained_run, untrained):
    earlier = Translator.load(untrained_run.path, 1)
    assert names_of([untrained, earlier]) == ["tiny@2", "tiny@1"]
    assert names_of([untrained, untrained]) == ["tiny@2", "tiny@2"]


def test_an_average_is_named_by_its_first_and_last_step_if_unique():
    def named(*checkpoints):
        paths = [SimpleNamespace(path=Path("runs/a/checkpoints") / name) for name in checkpoints]
        return names_of([SimpleNamespace(checkpoint=path) for path in paths])

    assert named("average-of-1-2-3", "step-00000030") == ["a@average-of-1-…-3", "a@30"]
    same = ["average-of-1-2-4", "average-of-1-3-4"]
    assert named(*same) == [f"a@{name}" for name in same]
    assert named("average-of-1-2", "step-00000000") == ["a@average-of-1-2", "a@0"]
