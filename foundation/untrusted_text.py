"""Untrusted text, escaped for display in a terminal, a log or a page.

The author of a corpus chooses its sentences, and the sender of a file its name. A terminal obeys
control sequences in them: ESC ] 0 sets its title, ESC ] 52 its clipboard, and U+202E reverses the
order of the following text. So all text for people is escaped by `visible` first:

    ESC ] 0 ; hi BEL  ─▶  \\x1b]0;hi\\x07

Text for other programs (translations in a pipe, JSON, data files) keeps its characters; JSON can
represent them as escapes, see `visible_in_json`.

These are escaped: all controls (C0, C1, DEL), direction marks, Unicode's line separators, lone
surrogates, and characters without width, which hide text or make two names look alike. The code
points are listed here, because the tables of `unicodedata` change with the Python version.

Some characters without width are kept:
- combining marks, which are part of the letters of their scripts;
- ZWNJ and ZWJ after a letter or symbol of scripts beyond Cyrillic. Persian, Indic scripts and emoji
  require them. After any other character, they only serve to deceive;
- one variation selector after a visible character. Several selectors in a row, or a selector
  without a visible character before it, could hide text.

The flags of England, Scotland and Wales consist of tags, which can hide text, so they are escaped.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

# Controls except tab and newline, which only `visible_line` escapes.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_HIDDEN = (
    "\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINERS = "\u200c\u200d"
_odd = re.compile(f"[{_CONTROLS}{_HIDDEN}{_JOINERS}{_SELECTORS}]")
_odd_or_layout = re.compile(rf"[\t\n{_CONTROLS}{_HIDDEN}{_JOINERS}{_SELECTORS}]")
# Characters after which a joiner is kept: from U+0590 (Hebrew) on, without U+2000 to U+206F.
_takes_joiner = re.compile(rf"(?![{_HIDDEN}])[\u0590-\u1fff\u2070-\U0010ffff]")
# Characters after which a selector is kept.
_takes_selector = re.compile(rf"[^\s{_CONTROLS}{_HIDDEN}{_JOINERS}{_SELECTORS}]")
_joiner = re.compile(f"[{_JOINERS}]")
_selector = re.compile(f"[{_SELECTORS}]")


def visible(text: str) -> str:
    """Return a text with escapes such as `\\x1b` and `\\u202e` for control and hidden characters.

    Newlines, tabs and backslashes are kept. A text that contains a literal `\\x1b` therefore looks
    like an escape. The function is idempotent.
    """
    return _odd.sub(_escape, text)


def visible_line(text: str) -> str:
    """Return the text as `visible` does, but in one line: newlines and tabs are escaped, too."""
    return _odd_or_layout.sub(_escape, text)


def visible_in_json(json_text: str) -> str:
    """Return JSON that has the same value and cannot control a terminal."""
    return _odd.sub(_escape_of_json, json_text)


def visible_in(value: Any) -> Any:
    """Return mappings and lists with `visible` applied to all strings and keys."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible_in(key): visible_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_in(item) for item in value]
    return value


def logger_of(module: str) -> logging.Logger:
    """Return a module's logger, which applies `visible` to all messages, for any handler."""
    logger = logging.getLogger(module)
    if _make_visible not in logger.filters:
        logger.addFilter(_make_visible)
    return logger


def _make_visible(record: logging.LogRecord) -> bool:
    record.msg, record.args = visible(record.getMessage()), ()
    return True


def _escape(found: re.Match[str]) -> str:
    if _belongs_there(found):
        return found.group()
    return found.group().encode("unicode_escape").decode()


def _escape_of_json(found: re.Match[str]) -> str:
    if _belongs_there(found):
        return found.group()
    units = found.group().encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _belongs_there(found: re.Match[str]) -> bool:
    """Return True for a joiner or a selector in a position where a script needs one."""
    character, before = found.group(), found.string[max(0, found.start() - 1) : found.start()]
    if _joiner.match(character):
        return _takes_joiner.match(before) is not None
    return bool(_selector.match(character) and _takes_selector.match(before))
