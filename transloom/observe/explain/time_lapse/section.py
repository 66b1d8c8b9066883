"""Build the section with a run's time-lapse, whose last step has the weights of the page."""

from collections.abc import Iterable

from foundation.wording import counted
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.folder import RunFolder
from run_store.record.time_lapse import TimeLapseFrame, read_time_lapse
from trainer.tasks.probing import probe
from transloom.inference.translator import Translator
from transloom.observe.explain.markup import escape
from transloom.observe.explain.page import PageSection
from transloom.observe.explain.time_lapse.markup import Moments, lapse_markup

TIME_LAPSE = "time-lapse"  # id of the section, for links to it


def time_lapse_section(translator: Translator) -> tuple[PageSection | None, int]:
    """Return the section for the run of a translator, and the number of steps on its slider.

    The section is None if the run has no time-lapse.

    Raises:
        OSError: the time-lapse exists but cannot be read.
    """
    checkpoint = translator.checkpoint
    folder = RunFolder(checkpoint.path.parents[1]).time_lapse
    kept = read_time_lapse(folder, checkpoint.step)
    moments = by_sentence(kept.moments)
    if _is_another_moment(checkpoint, kept.moments):
        _add_weights_of_the_page(moments, translator)
    section = section_of(moments, kept.problems) if moments or kept.problems else None
    return section, count_moments(moments)


def by_sentence(kept: Iterable[TimeLapseFrame]) -> Moments:
    """Group probes by sentence. A resumed run may have other sentences than before."""
    moments: Moments = {}
    for moment in kept:
        for one in moment.probes:
            moments.setdefault(one.sentence, []).append((f"step {moment.step:,}", one))
    return moments


def section_of(moments: Moments, problems: Iterable[str] = ()) -> PageSection:
    """Return the section about the probes of at least one sentence, or only about problems."""
    texts = [
        *(f"This step is left out: {problem}." for problem in problems),
        "Early steps change the network most, so they were recorded more often: at powers of two, "
        "and at 1.5 times each power. Attention weights are rounded to multiples of 1/255. A "
        "translation is cut at twice the length of its sentence plus four pieces, because an "
        "untrained network seldom ends a translation. A sentence that you type is not played here: "
        "the page has the weights of one step, and not those of the others. The time-lapse takes "
        f"{_kilobytes(moments):,} kB of this page.",
    ]
    lead = (
        f"During its training, this model translated the same sentence "
        f"{counted(count_moments(moments), 'time')}. The slider begins "
        "where half of the words of its last translation are there; play on, or move it back to "
        "the beginning. An "
        "untrained network repeats one piece, and its attention is uniform. Later it writes words, "
        "and each head attends to certain pieces."
    )
    html = (
        f'<section id="{TIME_LAPSE}" tabindex="-1" data-group="Training" data-name="Time-lapse">'
        f'<h1>Translations during training</h1><p class="lead">{escape(lead)}</p>'
        f"{lapse_markup(moments) if moments else ''}"
        f"{''.join(f'<p>{escape(text)}</p>' for text in texts)}</section>"
    )
    return PageSection(html, "explain/time_lapse/lapse.js")


def count_moments(moments: Moments) -> int:
    """Return the number of steps on the slider, for the sentence with the most steps."""
    return max((len(of_one) for of_one in moments.values()), default=0)


def _kilobytes(moments: Moments) -> int:
    """Return the approximate size of the probes in a page, in kB."""
    probes = [probe for of_one in moments.values() for _, probe in of_one]
    return -(-sum(len(probe.model_dump_json()) for probe in probes) // 1000)


def _is_another_moment(checkpoint: Checkpoint, kept: tuple[TimeLapseFrame, ...]) -> bool:
    """Return whether the page's weights differ from those of every frame of the time-lapse."""
    is_average = bool(checkpoint.header.averaged_steps)
    return bool(kept) and (is_average or kept[-1].step != checkpoint.step)


def _add_weights_of_the_page(moments: Moments, translator: Translator) -> None:
    source, target = translator.tokenizers[0], translator.tokenizers[-1]
    checkpoint = translator.checkpoint
    is_average = checkpoint.header.averaged_steps
    weights = checkpoint.path.name if is_average else f"step {checkpoint.step:,}"
    name = f"{weights}, this page's weights"
    for sentence, kept in moments.items():
        found = probe(translator.model, source, target, sentence, kept[-1][1].tag)
        kept.append((name, found))
