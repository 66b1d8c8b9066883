"""URLs that users see instead of local folders.

A command reads a run in an object store from a local copy. Its messages may name a file of this
copy, and the functions that print replace the folder by the run's URL. Only folders that this
process has registered are replaced.
"""

from pathlib import Path

# URLs by their local folders, and the reasons why folders are outdated.
_urls: dict[str, str] = {}
_problems: dict[str, str] = {}


def show_as_url(folder: Path, url: str) -> None:
    """Register a folder for which messages show a URL."""
    _urls.update({str(path): url for path in (folder, folder.resolve())})


def url_of(folder: Path) -> str | None:
    """Return the URL that is shown for a folder, or None."""
    return _urls.get(str(folder))


def with_urls(text: str) -> str:
    """Replace registered folders by their URLs in a text for users."""
    for folder, url in _urls.items():
        text = text.replace(folder, url)
    return text


def set_problem(folder: Path, problem: str | None) -> None:
    """Record why a registered folder cannot be brought up to date; None if it is up to date."""
    for path in (folder, folder.resolve()):
        if problem is None:
            _problems.pop(str(path), None)
        else:
            _problems[str(path)] = problem


def problem_of(folder: Path) -> str | None:
    """Return why a registered folder is outdated, or None."""
    return _problems.get(str(folder))
