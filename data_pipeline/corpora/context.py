"""Context: each sentence with those before it in its document.

    lines of a document      what a model with one sentence of context reads
    A man is riding.         A man is riding.
    He is fast.              A man is riding. ␞ He is fast.
    His dog runs.            He is fast. ␞ His dog runs.

An empty line ends a document, and so does a file. Only the source has context, and what is written
is the translation of the last sentence alone ("2+1" of Tiedemann and Scherrer 2017, "Neural Machine
Translation with Extended Context"): so a target is found without cutting a text up, and scores are
of sentences. The separator is a character that a tokenizer learns as a piece.
"""

from collections import deque
from collections.abc import Iterable, Iterator

SEPARATOR = "␞"
_BETWEEN = f" {SEPARATOR} "


class Context:
    """The sentences before the next one of a document."""

    def __init__(self, sentences: int) -> None:
        """
        Args:
            sentences: how many are kept.
        """
        self._before: deque[str] = deque(maxlen=sentences)

    def added(self, sentence: str) -> str:
        """The sentence with its context, and the context of those that follow."""
        if not sentence.strip():
            self._before.clear()
            return sentence
        joined = _BETWEEN.join([*self._before, sentence])
        self._before.append(sentence)
        return joined


def in_context(sentences: Iterable[str], before: int) -> Iterator[str]:
    """Each sentence with as many as `before` of its document before it."""
    context = Context(before)
    return map(context.added, sentences)


def without_context(text: str) -> str:
    """A sentence that had context, with the separator before it, and any other as it is."""
    _, separator, sentence = text.rpartition(_BETWEEN)
    return f"{SEPARATOR} {sentence}" if separator else text
