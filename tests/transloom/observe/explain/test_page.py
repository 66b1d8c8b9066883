"""The page as a file: nothing from the network, no text that becomes markup, and it runs."""

import re
import subprocess
from html import escape

import pytest
from support.explained_page import PageReader
from support.machine_parts import BROWSERS, program

from transloom.observe.explain.explanation import explain
from transloom.observe.explain.translation_page import translation_page

HOSTILE = "<script>alert(\"x\")</script> & 'je' {{style}} </section> \\u003c"


def page_of(translator, sentence):
    return translation_page(explain(translator, sentence), sentence)


def test_it_needs_no_network(translator_of):
    page = page_of(translator_of(), "je suis étudiant")
    page = page.replace('"http://www.w3.org/2000/svg"', "")  # a name, and no address
    page = re.sub(r"script-src 'sha256-[^']*'", "", page)  # it may contain two slashes
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|import\(", page)
    reader = PageReader(page)
    for tag, attributes in reader.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,")), (tag, attributes)
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
    policies = [a["content"] for tag, a in reader.tags if a.get("http-equiv")]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")


def test_the_sentence_is_text_wherever_it_stands(translator_of):
    translator = translator_of()
    page = page_of(translator, HOSTILE)
    assert f'dir="auto">{escape(HOSTILE)}</span>' in page
    hostile, plain = (PageReader(one) for one in (page, page_of(translator, "je")))
    ((_, data),) = hostile.sections[0].figures
    assert data["recorded"]["sentence"] == HOSTILE

    def own_scripts(reader):
        return [a for tag, a in reader.tags if tag == "script" and "type" not in a]

    assert len(own_scripts(hostile)) == len(own_scripts(plain)) == 1
    kinds = [{tag for tag, _ in reader.tags} for reader in (hostile, plain)]
    assert kinds[0] == kinds[1]


@pytest.mark.long
@pytest.mark.needs("browser")
def test_a_browser_draws_it_and_obeys_address_and_buttons(translator_of, tmp_path):
    """It opens at section 4; Next leads to section 5; a button changes the colours."""
    on = "document.getElementById('on').click()"
    colours = "document.getElementById('theme').click()"
    page = page_of(translator_of(), HOSTILE)
    # The test's own script has no hash in the page's policy.
    page = re.sub("script-src [^;]+", "script-src 'unsafe-inline'", page)
    file = tmp_path / "explain.html"
    # Sections are there once their numbers are unpacked.
    clicks = f"setTimeout(() => {{ {on}; {colours} }}, 1000)"
    file.write_text(f"{page}<script>{clicks}</script>", encoding="utf-8")
    result = subprocess.run(
        [
            str(program(*BROWSERS)),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=4000", "--dump-dom", f"{file.as_uri()}#section-4"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in result.stderr  # neither an error nor a refused request
    assert re.search(r'<span id="place"[^>]*>5 of \d+</span>', result.stdout)
    assert re.search(r'<a href="#section-5" aria-current="step">', result.stdout)
    assert re.search(r'<html [^>]*class="stepping" data-theme="(dark|light)"', result.stdout)
    here = re.search(
        r'<section id="section-5" [^>]*class="drawn here".*?</section>', result.stdout, re.S
    )
    drawn = re.findall(r'<canvas [^>]*width="(\d+)" height="(\d+)"', here[0])
    assert len(drawn) == here[0].count("<canvas") > 4
    assert all(int(width) > 20 and int(height) > 20 for width, height in drawn)
