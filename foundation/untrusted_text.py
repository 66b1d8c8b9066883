"""Text that strangers wrote, made fit to be seen: in a terminal, a log or a page.

The author of a corpus chooses its sentences, and the sender of a file its name. A terminal obeys
what is in them: ESC ] 0 sets its title, ESC ] 52 its clipboard, U+202E turns the order of what
follows. So whatever a person is to look at goes through `visible` first:

    ESC ] 0 ; hi BEL  ─▶  \\x1b]0;hi\\x07

What other programs read (translations in a pipe, JSON, files of data) keeps its characters; JSON
can hold them as escapes, see `visible_in_json`.

Shown are all controls (C0, C1, DEL), what sets the direction of text, the line ends of Unicode,
lone surrogates, and what takes no place and so hides text or makes two names look alike. The code
points stand here and not in `unicodedata`, whose tables change with Python.

Kept, though they take no place, are
- combining marks: they are letters of their scripts;
- ZWNJ and ZWJ behind a letter or sign beyond Cyrillic. Persian, the scripts of India and emoji are
  not written without them. Behind anything else they have no use but to deceive;
- a variation selector behind a character of its own. More of them, or a lone one, hide text.

The flags of England, Scotland and Wales are written in tags, which hide text, so these are shown.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

# Controls but tab and line end, which `visible_line` shows too.
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
# What stands before a joiner that is kept: a character from Hebrew on, but no space nor sign of
# U+2000 to U+206F; and before a selector that is kept.
_takes_joiner = re.compile(rf"(?![{_HIDDEN}])[\u0590-\u1fff\u2070-\U0010ffff]")
_takes_selector = re.compile(rf"[^\s{_CONTROLS}{_HIDDEN}{_JOINERS}{_SELECTORS}]")
_joiner = re.compile(f"[{_JOINERS}]")
_selector = re.compile(f"[{_SELECTORS}]")


def visible(text: str) -> str:
    """A text with escapes such as `\\x1b` and `\\u202e` for what could steer or hide.

    Line ends and tabs stay. A backslash stays too, so what was text and what an escape cannot
    always be told. Doing it twice changes nothing more.
    """
    return _odd.sub(_escape, text)


def visible_line(text: str) -> str:
    """As `visible`, of a text that is to be one line: its line ends and tabs are shown too."""
    return _odd_or_layout.sub(_escape, text)


def visible_in_json(json_text: str) -> str:
    """JSON with the same value, in which nothing steers a terminal that it is printed to."""
    return _odd.sub(_escape_of_json, json_text)


def visible_in(value: Any) -> Any:
    """Mappings and lists with all of their texts and keys visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible_in(key): visible_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_in(item) for item in value]
    return value


def logger_of(module: str) -> logging.Logger:
    """The logger of a module, in whose messages everything is visible, wherever they go."""
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
    """Whether it is a joiner or a selector where a script needs one."""
    character, before = found.group(), found.string[max(0, found.start() - 1) : found.start()]
    if _joiner.match(character):
        return _takes_joiner.match(before) is not None
    return bool(_selector.match(character) and _takes_selector.match(before))
