"""Context: each sentence joined to the preceding sentences of its document.

    lines of a document      input of a model with one sentence of context
    A man is riding.         A man is riding.
    He is fast.              A man is riding. ␞ He is fast.
    His dog runs.            He is fast. ␞ His dog runs.

An empty line or the end of a file ends a document. Only source sentences have context. The model
outputs the translation of the last sentence alone ("2+1" of Tiedemann and Scherrer 2017, "Neural
Machine Translation with Extended Context"). The output therefore needs no cutting, and each
sentence is scored separately. The separator is a character that the tokenizer learns as a piece.
"""

from collections import deque
from collections.abc import Iterable, Iterator

SEPARATOR = "␞"
_BETWEEN = f" {SEPARATOR} "


class Context:
    """Sliding window of a document's latest sentences."""

    def __init__(self, sentences: int) -> None:
        """Start with an empty window.

        Args:
            sentences: maximum number of sentences kept.
        """
        self._before: deque[str] = deque(maxlen=sentences)

    def added(self, sentence: str) -> str:
        """Return the sentence with its context, and keep it as context of the following sentences.

        A blank sentence ends the document and is returned unchanged.
        """
        if not sentence.strip():
            self._before.clear()
            return sentence
        joined = _BETWEEN.join([*self._before, sentence])
        self._before.append(sentence)
        return joined


def in_context(sentences: Iterable[str], before: int) -> Iterator[str]:
    """Yield each sentence with up to `before` preceding sentences of its document."""
    context = Context(before)
    return map(context.added, sentences)


def without_context(text: str) -> str:
    """Return a text without the context before its last sentence, but with the separator.

    A text without context is returned unchanged.
    """
    _, separator, sentence = text.rpartition(_BETWEEN)
    return f"{SEPARATOR} {sentence}" if separator else text
