"""Convert a time-lapse to HTML: its first step, a table of all translations, and data for lapse.js.

lapse.js draws the attention heads as ordinary heat maps, so keyboard navigation and screen readers
work as for other maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from foundation.untrusted_text import visible_in
from run_store.record.probe import Probe, sides_of
from transloom.observe.explain.markup import escape, json_in_html

Moments = dict[str, list[tuple[str, Probe]]]  # by sentence: pairs of a step's name and a probe

_CONTROLS = """\
<div class="lapse">
<p><label>Sentence <select data-lapse="sentence">{sentences}</select></label> </p>
<div data-lapse="player"></div>
<p class="said"><output data-lapse="output" dir="auto"></output>
<small data-lapse="ended"></small></p>
<h2 class="part">Predictions of the next piece</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Predictions of each step">
<table data-lapse="predictions"><thead><tr><th>step</th><th>input</th><th>most probable next</th>
</tr></thead><tbody></tbody></table></div>
<h2 class="part">Attention</h2>
<p><label>Attention <select data-lapse="place">{places}</select></label> <small>rows attend to
columns</small></p>
<div class="side-by-side" data-lapse="maps"></div>
<h2 class="part">All translations</h2>
<div data-lapse="all">{tables}</div>
<script type="application/json" data-lapse="data">{data}</script>
</div>"""


def lapse_markup(lapse: Moments) -> str:
    """Return the time-lapse as HTML."""
    sentences = list(lapse)
    first = lapse[sentences[0]]
    places = [one.place for one in first[0][1].attention]
    shown = places[-1]  # the cross-attention of the last layer
    data = json_in_html([_data_of(sentence, moments) for sentence, moments in lapse.items()])
    options = "".join(f'<option value="{n}">{escape(s)}</option>' for n, s in enumerate(sentences))
    return _CONTROLS.format(
        sentences=options,
        places="".join(
            f'<option value="{escape(place)}"{" selected" if place == shown else ""}>'
            f"{escape(_name(place))}</option>"
            for place in places
        ),
        tables="".join(_table(sentence, moments) for sentence, moments in lapse.items()),
        data=data,
    )


def _table(sentence: str, moments: Sequence[tuple[str, Probe]]) -> str:
    """Return a table of a sentence's translations, one row per step with a button to show it."""
    rows = "".join(
        f'<tr><th scope="row"><button type="button" class="number" data-at="{n}">{escape(name)}'
        f'</button></th><td dir="auto">{escape(probe.output or "(nothing)")}</td></tr>'
        for n, (name, probe) in enumerate(moments)
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="All translations">'
        f'<table><caption><bdi>{escape(sentence)}</bdi></caption><thead><tr><th scope="col">after'
        f'</th><th scope="col">translation</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _data_of(sentence: str, moments: Sequence[tuple[str, Probe]]) -> dict[str, Any]:
    return {"sentence": sentence, "moments": [_moment(name, probe) for name, probe in moments]}


def _moment(name: str, probe: Probe) -> Mapping[str, Any]:
    cut = probe.source_pieces - len(probe.source)
    texts = {
        "name": name,
        "output": probe.output,
        "source": list(probe.source),
        "target": list(probe.target),
        "predictions": [[p.model_dump() for p in step] for step in probe.predictions],
    }
    maps = [
        {
            "place": one.place,
            "sides": sides_of(one.place),
            "shape": one.shape,
            "mean": one.mean_of_heads,
            "weights": one.weights,
        }
        for one in probe.attention
    ]
    return {**visible_in(texts), "ended": probe.ended, "cut": cut, "maps": maps}


def _name(place: str) -> str:
    stack, _, layer, part = place.split(".")
    return f"{stack.capitalize()} layer {int(layer) + 1}, {part.replace('_', '-')}"
