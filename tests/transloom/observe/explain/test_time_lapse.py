"""The page's time-lapse section: recorded steps up to the page's weights, and escaping."""

import json
from html import unescape

import pytest
from support.explained_page import PageReader
from support.records.moments import made_probe, write_moments
from typer.testing import CliRunner

from run_store.folder import RunFolder
from trainer.tasks.probing import probe
from transloom.cli.app import app
from transloom.inference.translator import Translator
from transloom.observe.explain.time_lapse.section import section_of, time_lapse_section

HOSTILE = '</script><script>alert(1)</script> & {{script}} {data} "x"'


@pytest.fixture
def lapse(untrained_run):
    """Return the folder of the run's time-lapse, and delete it after the test."""
    folder = RunFolder(untrained_run.path).time_lapse
    yield folder
    for file in folder.glob("*"):
        file.unlink()
    if folder.exists():
        folder.rmdir()


def data_of(page):
    return next(data for _, data in page.sections[-1].figures if isinstance(data, list))


def test_a_run_without_probes_has_no_time_lapse_section(untrained_run):
    assert time_lapse_section(Translator.load(untrained_run.path)) == (None, 0)


def test_the_time_lapse_ends_with_the_weights_of_the_page(untrained_run, lapse):
    write_moments(lapse, {0: "the the", 1: "she", 3: "later than the checkpoint"})
    for checkpoint, names in ((1, ["step 0", "step 1"]), (2, ["step 0", "step 1", "page"])):
        translator = Translator.load(untrained_run.path, checkpoint)
        page = PageReader(time_lapse_section(translator)[0].html)
        ((_, moments),) = [tuple(one.values()) for one in data_of(page)]
        found = [moment["name"] for moment in moments]
        assert [name if name in names else "page" for name in found] == names
        assert "later than" not in page.sections[0].text
    source, target = translator.tokenizers[0], translator.tokenizers[-1]
    assert moments[-1]["output"] == probe(translator.model, source, target, "je suis").output
    assert found[-1] == "step 2, this page's weights"


def test_untrusted_texts_are_escaped_in_the_time_lapse():
    moments = {HOSTILE: [("step 0", made_probe(HOSTILE, HOSTILE)), ("step 1", made_probe("a"))]}
    page = section_of(moments).html
    assert HOSTILE not in page
    assert page.count("<script") == 1  # the section's data
    reader = PageReader(page)
    (history,) = data_of(reader)
    assert history["sentence"] == HOSTILE
    assert history["moments"][0]["output"] == HOSTILE
    assert unescape(HOSTILE) in reader.sections[0].text


def test_the_section_names_steps_that_cannot_be_read(untrained_run, lapse):
    write_moments(lapse, {0: "the", 1: "she"})
    (lapse / "step-00000001.json").write_text("{}")
    section, _ = time_lapse_section(Translator.load(untrained_run.path))
    assert "This step is left out: " in PageReader(section.html).sections[0].text


def test_explain_adds_the_time_lapse_and_the_figure_links_to_it(untrained_run, lapse, tmp_path):
    write_moments(lapse, {0: "the the", 1: "she"})
    file = tmp_path / "page.html"
    arguments = ["explain", str(untrained_run.path), "je", "--output", str(file), "--json"]
    said = json.loads(CliRunner().invoke(app, arguments).stdout)
    page = PageReader(file.read_text(encoding="utf-8"))
    assert said["time_lapse"] == 3
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    assert ids == ["section-1", "live", "time-lapse"]
    (walk,) = [data for _, data in page.sections[0].figures if "places" in data]
    assert "time-lapse" in [link["place"] for link in walk["places"]]
    assert "kB of this page" in page.sections[-1].text
