"""`transloom classify`: texts in, their labels or those of their words out."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from cluster.terminal import Terminal, percentages, warn
from foundation.strangers_text import visible_in_json
from foundation.wording import counted
from transloom.inference.labeller import LabelledText, Labeller, TaggedText

TEXTS_AT_ONCE = 512  # sorted by length, so that little is padded
SHOWN_FROM = 2 * TEXTS_AT_ONCE  # texts: fewer are done before a bar is looked at


def labelled_lines(labeller: Labeller, texts: Sequence[str], *, as_json: bool) -> Iterator[str]:
    """What is printed for each text: its label, or its words with theirs, or all in JSON."""
    cut = 0
    with percentages(Terminal(stderr=True)) as progress:
        shown = len(texts) >= SHOWN_FROM and not sys.stdout.isatty()
        bar = progress.add_task("classify", total=len(texts), visible=shown)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            found: Sequence[LabelledText | TaggedText]
            found = labeller.tag(some) if labeller.of_words else labeller.label(some)
            for one in found:
                cut += isinstance(one, LabelledText) and one.read < one.tokens
                yield from _told(one, as_json=as_json)
            progress.update(bar, advance=len(some))
    if cut:
        longest = labeller.network.encoder.context_length
        warn(
            f"Of {counted(cut, 'text')} only the first {longest:,} tokens were read, which is "
            "batching.context_length of the run"
        )


def _told(found: LabelledText | TaggedText, *, as_json: bool) -> Iterator[str]:
    if as_json:
        yield visible_in_json(json.dumps(asdict(found), ensure_ascii=False))
    elif isinstance(found, LabelledText):
        yield found.label
    else:
        yield "".join(f"{word.word}\t{word.label}\n" for word in found.words)
