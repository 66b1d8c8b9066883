"""MkDocs hooks of the documentation site: generated pages, links that leave docs/, search.

    pages of docs/ ─────────────────────────┐
    CHANGELOG.md, benchmarks/README.md, … ──┼─▶ links resolved in the repository ──▶ site/
    reference.py: commands, fields, … ──────┤
    scripts/exhibits, if it was run ────────┘

A link to a file of the repository that is no page of the site becomes plain text. Decision records
stay out of the search index: they repeat the words of guides, and would rank above them.
"""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from reference import GENERATED  # noqa: E402  (it lies beside this file)

# Pages whose text lies outside docs/, by their place in the site.
INCLUDED = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security-policy.md": "SECURITY.md",
    "project/benchmarks.md": "benchmarks/README.md",
}
# Pages that scripts/exhibits writes. They are not in git, as they are large and have to be trained.
EXHIBITS = ("exhibits/explain.html", "exhibits/report.html")
NO_EXHIBIT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Not built</title>
<h1>This exhibit was not built</h1>
<p>Run <code>scripts/exhibits</code>, which trains two runs for ten minutes on two cores, and
build the site again.</p></html>
"""
HOME = "README.md"  # links to it go to the home page of the site
# Pages that explain a subject as a whole. Search shows them before pages that only have its words.
FIRST_FOUND = ("how-to/extending.md", "tutorials/first-day.md", "how-to/ray-cluster.md")
NOT_SEARCHED = "decisions/"

_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
# part of the first line of a block that a test runs
_LABEL = re.compile(r"^( *```\w+) [\w -]+$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^ *\|.*$", re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_EMPTY_HEADER = re.compile(r"<th( [^>]*)?></th>")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


def on_files(files: Files, config: Any) -> Files:
    """Add generated pages, pages whose text is outside docs/, and missing exhibits."""
    for uri, name in INCLUDED.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text()))
    for uri, page in GENERATED.items():
        files.append(File.generated(config, uri, content=page()))
    for uri in EXHIBITS:
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=NO_EXHIBIT))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Adapt the links and tables of a page to the site, and select its searchable text."""
    uri = page.file.src_uri
    if uri.startswith(NOT_SEARCHED):
        page.meta["search"] = {"exclude": True}
    elif uri in FIRST_FOUND:
        page.meta["search"] = {"boost": 4}
    origin = INCLUDED.get(uri, f"docs/{uri}")

    def resolved(match: re.Match[str]) -> str:
        image, text, link = match.groups()
        if link.startswith("#") or _SCHEME.match(link):
            return match[0]
        path, _, anchor = link.partition("#")
        target = _site_uri(posixpath.normpath(posixpath.join(posixpath.dirname(origin), path)))
        if target is None:
            return text
        if files.get_file_from_path(target) is None and (ROOT / "docs" / target).is_dir():
            return text
        relative = posixpath.relpath(target, posixpath.dirname(uri) or ".")
        return f"{image}[{text}]({relative}{'#' + anchor if anchor else ''})"

    parts = _FENCE.split(_LABEL.sub(r"\1", markdown))
    return "".join(
        p if n % 2 else _unescape_pipes(_LINK.sub(resolved, p)) for n, p in enumerate(parts)
    )


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Improve the theme's HTML for screen readers.

    The search dialog gets a name. Lists in the table of contents are no longer landmarks with the
    names of sections of the site. Empty header cells become plain cells.
    """
    named = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    named = named.replace(
        '<nav class="md-nav" aria-label="', '<nav class="md-nav" aria-label="Parts of '
    )
    return _EMPTY_HEADER.sub(r"<td\1></td>", named)


def _unescape_pipes(markdown: str) -> str:
    r"""Replace `\|` by `|` in code spans of tables.

    GitHub needs the backslash there and hides it; Python-Markdown needs none and shows it.
    """

    def unescape(span: re.Match[str]) -> str:
        return span[0].replace("\\|", "|")

    return _TABLE_ROW.sub(lambda row: _CODE_SPAN.sub(unescape, row[0]), markdown)


def _site_uri(name: str) -> str | None:
    """Return the place in the site of a file of the repository; None if it has none."""
    if name == HOME:
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return next((uri for uri, included in INCLUDED.items() if included == name), None)
