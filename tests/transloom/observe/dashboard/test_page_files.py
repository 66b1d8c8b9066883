"""The page's files load nothing from other servers, and a report runs only its own scripts."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from support.dashboard.made_up import HOSTILE, answers
from support.explained_page import PageReader

from transloom.observe.report.report import PAGE, one_file

UPLOT = Path(str(PAGE)) / "vendor" / "uplot"
LINKEDOM = Path(__file__).parents[3] / "support" / "vendor" / "linkedom"
# SHA-256 of the files in the packages that the README.md of their folders name.
VENDORED = {
    UPLOT / "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    UPLOT / "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    UPLOT / "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    LINKEDOM / "worker.js": "0f4d0c736eac11c98c1d7b7a041a0c36c8d5aa706dfeae64d84747d8b333f3d3",
    LINKEDOM / "LICENSE": "dc6d4961d8b6ee747231582ae9c53ce1d66bf76bc9f5a28f554c0e97210953bf",
}
SOURCES = [p for p in sorted(PAGE.iterdir(), key=lambda p: p.name) if p.is_file()]


@pytest.mark.parametrize("folder", [UPLOT, LINKEDOM], ids=lambda path: path.name)
def test_the_files_of_other_projects_equal_those_of_their_packages(folder):
    found = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    found.pop(folder / "README.md")
    assert found == {path: sha256 for path, sha256 in VENDORED.items() if path.parent == folder}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_page_makes_no_external_requests_and_no_html_from_data(source):
    text = source.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|XMLHttpRequest|import\(", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser", text)
    assert not re.search(r"\beval\(|new Function|setAttribute\(\"style\"", text)
    if source.name != "answers.js":  # the only module that sends requests
        assert not re.search(r"\bfetch\(|EventSource|WebSocket|sendBeacon", text)


def test_a_reports_policy_allows_only_its_inline_scripts_and_styles():
    page = one_file(answers())
    reader = PageReader(page)
    (policy,) = [a["content"] for tag, a in reader.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        allowed = re.search(rf"{kind} ([^;]*)", policy)[1].split()
        texts = re.findall(rf"<{tag}(?: type=\"module\")?>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert allowed == [f"'sha256-{found}'" for found in hashes]
        assert len(allowed) >= 2
    for _, attributes in reader.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:image/svg+xml"))


def test_untrusted_text_is_escaped_in_a_report():
    given = answers() | {"/api/</script><script>": HOSTILE}
    page = one_file(given)
    assert HOSTILE not in page
    held = re.search(r'<script type="application/json" id="frozen">(.*?)</script>', page, re.S)
    assert json.loads(held[1]) == given
    assert [tag for tag, _ in PageReader(page).tags].count("script") == 3
