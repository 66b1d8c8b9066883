"""Draw the loss curve of a killed run over that of an undisturbed run, as an animated SVG.

    lines of both metrics files ─▶ Story: losses, interruptions ─▶ Clock: time of each step ─▶ SVG

The final state of the picture is its default. CSS animations, which respect prefers-reduced-motion,
play how the run got there: the curve grows, stops where the run was killed, and grows again from
the checkpoint. They move a clip over the finished curve, so every frame has the same path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from run_store.record.metrics_lines import Line, ReplayMismatch, Resumed, TrainLine

WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 838, 50, 262  # edges of the plot
STEP_SECONDS = 0.055
PAUSE_SECONDS = 1.5  # seconds without movement after the start, and after each kill
HOLD_SECONDS = 6.0  # seconds that show the finished picture
REPETITIONS = 3
BACK_SECONDS = 0.8  # seconds in which the curve goes back to the checkpoint
CLIP_WIDTH = RIGHT + 4  # width of the plot and half of the pen
LABEL_LINE = 19  # pixels between two lines of a label
# What happens after a kill, by the killed process.
REMEDIES = {
    "driver": "the same command continues from step {}",
    "rank": "replaced, continues from step {}",
}

Keyframe = tuple[str, str]  # percentage of the animation, and declarations

STYLE = """\
path, line { fill: none; stroke-linejoin: round; stroke-linecap: round }
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.minor { fill: #59636e; font-size: 12px }
.page { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #e4e8ec }
.undisturbed { stroke: #b6d4f5; stroke-width: 7 }
.curve { stroke: #0a3069; stroke-width: 2 }
.pen { fill: #0a3069; opacity: 0 }
.lost { stroke: #0a3069; stroke-width: 2; stroke-opacity: .35; visibility: hidden }
.repeated { fill: #cf222e; fill-opacity: .09 }
.kill { stroke: #cf222e; stroke-width: 3 }
.leader { stroke: #cf222e; stroke-width: 1; stroke-dasharray: 3 3 }
.cause { fill: #cf222e; font-weight: 600 }
.same { fill: #1a7f37; font-weight: 600 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .minor { fill: #9198a1 } .page { fill: #0d1117; stroke: #3d444d }
.grid { stroke: #262c34 } .undisturbed { stroke: #1f4a80 } .curve, .lost { stroke: #a5d6ff }
.pen { fill: #a5d6ff } .repeated { fill: #ff7b72; fill-opacity: .14 }
.kill, .leader { stroke: #ff7b72 } .cause { fill: #ff7b72 } .same { fill: #56d364 }
}
"""


@dataclass(frozen=True)
class Interruption:
    """Kill of a run, and its continuation.

    Attributes:
        victim: the killed process.
        step: the last recorded step before the kill.
        from_step: the step of the checkpoint that the run continued from.
    """

    victim: str
    step: int
    from_step: int


@dataclass(frozen=True)
class Story:
    """Losses of both runs by step, and the interruptions of one of them."""

    undisturbed: list[float]
    killed: list[float]
    interruptions: list[Interruption]

    @property
    def steps(self) -> int:
        return len(self.killed)


def read_story(
    undisturbed: Iterable[Line], killed: Iterable[Line], victims: Sequence[str]
) -> Story:
    """Compare the lines of both runs, and return what the picture shows.

    Args:
        undisturbed: the lines of a run without interruptions.
        killed: the lines of the other run.
        victims: the process that was killed, for each interruption in order.

    Raises:
        ValueError: the runs differ in a step, its data or the bits of its loss; a repeated step
            differed from its line; or the number of interruptions is not that of `victims`.
    """
    killed = list(killed)
    reference = {line.step: line for line in undisturbed if isinstance(line, TrainLine)}
    lines = {line.step: line for line in killed if isinstance(line, TrainLine)}
    if list(reference) != list(lines):
        raise ValueError(
            f"the runs have {len(reference)} and {len(lines)} steps, expected the same"
        )
    for step, line in lines.items():
        same = reference[step]
        if (line.data_digest, line.loss) != (same.data_digest, same.loss):
            raise ValueError(f"step {step} differs: loss {line.loss!r}, expected {same.loss!r}")
    for event in killed:
        if isinstance(event, ReplayMismatch):
            raise ValueError(f"step {event.replayed_step} differed when it was repeated")
    starts = [event for event in killed if isinstance(event, Resumed)]
    if len(starts) != len(victims):
        raise ValueError(f"the run was resumed {len(starts)} times, expected {len(victims)}")
    return Story(
        undisturbed=[line.loss for line in reference.values()],
        killed=[line.loss for line in lines.values()],
        interruptions=[
            Interruption(victim, event.step, event.from_step)
            for victim, event in zip(victims, starts, strict=True)
        ],
    )


@dataclass(frozen=True)
class Pass:
    """Part of the animation in which the curve grows from one step to another.

    Attributes:
        first: the step at which the curve begins to grow; 1 at the start of the run.
        last: the step at which it stops.
        begin: the time at which it begins, in seconds.
        end: the time at which it stops.
    """

    first: int
    last: int
    begin: float
    end: float


class Clock:
    """Times of the animation, in seconds and as percentages of one repetition."""

    def __init__(self, story: Story) -> None:
        first, now = 1, PAUSE_SECONDS
        self.passes: list[Pass] = []
        for last, next_first in [
            *((cut.step, max(cut.from_step, 1)) for cut in story.interruptions),
            (story.steps, story.steps),
        ]:
            end = now + (last - first) * STEP_SECONDS
            self.passes.append(Pass(first, last, now, end))
            first, now = next_first, end + PAUSE_SECONDS
        self.seconds = end + HOLD_SECONDS

    def percent(self, seconds: float) -> str:
        return f"{100 * seconds / self.seconds:.2f}%"


class Plot:
    """Coordinates of steps and losses in the picture."""

    def __init__(self, story: Story) -> None:
        losses = [*story.undisturbed, *story.killed]
        self.steps = story.steps
        self.lowest, self.highest = min(losses), max(losses)

    def x(self, step: float) -> float:
        return LEFT + (RIGHT - LEFT) * (step - 1) / max(self.steps - 1, 1)

    def y(self, loss: float) -> float:
        margin = 8
        share = (loss - self.lowest) / ((self.highest - self.lowest) or 1)
        return BOTTOM - margin - (BOTTOM - TOP - 2 * margin) * share

    def path(self, losses: Sequence[float]) -> str:
        """Return the data of a path with a point for each loss."""
        return "M" + "L".join(self.points(losses))

    def points(self, losses: Sequence[float]) -> list[str]:
        """Return the coordinates of each loss."""
        return [f"{self.x(step):.1f} {self.y(loss):.1f}" for step, loss in enumerate(losses, 1)]


def draw(story: Story) -> str:
    """Return the picture as the text of an SVG file."""
    plot, clock = Plot(story), Clock(story)
    title = f"One run, killed {_times(len(story.interruptions))}: the same curve"
    curve = plot.path(story.killed)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-labelledby="title description">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="description">{escape(_description(story))}</desc>',
        f"<style>\n{STYLE}{_animations(story, plot, clock)}</style>",
        f'<clipPath id="kept"><rect class="sweep" x="0" y="0" width="{CLIP_WIDTH}" '
        f'height="{HEIGHT}"/></clipPath>',
        f'<clipPath id="reached"><rect class="reach" x="0" y="0" width="{CLIP_WIDTH}" '
        f'height="{HEIGHT}"/></clipPath>',
        f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="30">{escape(title)}</text>',
        *_axes(plot),
        *_bands(story, plot),
        f'<path class="undisturbed" d="{plot.path(story.undisturbed)}"/>',
        f'<g clip-path="url(#reached)"><path class="lost" d="{curve}"/></g>',
        f'<g clip-path="url(#kept)"><path class="curve" d="{curve}"/></g>',
        *_legend(),
        *_kills(story, plot),
        '<circle class="pen" r="4.5"/>',
        f'<text class="same" x="{RIGHT}" y="30" text-anchor="end">'
        f"{story.steps} of {story.steps} steps: same losses to the last bit</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _description(story: Story) -> str:
    cuts = "; ".join(
        f"{cut.victim} killed at step {cut.step}, continued from step {cut.from_step}"
        for cut in story.interruptions
    )
    return (
        f"Training loss of {story.steps} steps. {cuts}. All losses equal those of an undisturbed "
        "run to the last bit."
    )


def _axes(plot: Plot) -> list[str]:
    parts = []
    for loss in range(int(plot.lowest) + 1, int(plot.highest) + 1):
        y = plot.y(loss)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="minor" x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{loss}</text>'
        )
    parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    spacing = 20 if plot.steps >= 60 else 5
    parts += [
        f'<text class="minor" x="{plot.x(step):.1f}" y="{BOTTOM + 17}" '
        f'text-anchor="middle">{step}</text>'
        for step in (1, *range(spacing, plot.steps + 1, spacing))
    ]
    middle, centre = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    parts.append(
        f'<text class="minor" x="{middle}" y="{BOTTOM + 32}" text-anchor="middle">step</text>'
    )
    parts.append(
        f'<text class="minor" transform="translate(18 {centre}) rotate(-90)" '
        'text-anchor="middle">training loss</text>'
    )
    return parts


def _bands(story: Story, plot: Plot) -> list[str]:
    """Fill the area under the steps that were trained twice."""
    parts = []
    for number, cut in enumerate(story.interruptions):
        first = max(cut.from_step, 1)
        curve = plot.points(story.killed)[first - 1 : cut.step]
        corners = [f"{plot.x(step):.1f} {BOTTOM}" for step in (cut.step, first)]
        outline = "L".join([*curve, *corners])
        parts.append(f'<path class="repeated after-{number}" d="M{outline}z"/>')
    return parts


def _legend() -> list[str]:
    """Draw the legend in the lower left corner, which a falling curve leaves free."""
    entries = [
        ('<line class="undisturbed" x1="0" x2="24" y1="0" y2="0"/>', "undisturbed run"),
        ('<line class="curve" x1="0" x2="24" y1="0" y2="0"/>', "killed run"),
        ('<rect class="repeated" x="-2" y="-7" width="28" height="14"/>', "steps trained again"),
    ]
    parts = []
    for row, (sample, text) in enumerate(entries):
        y = BOTTOM - 18 - 20 * (len(entries) - 1 - row)
        parts.append(
            f'<g transform="translate({LEFT + 14} {y})">{sample}'
            f'<text class="minor" x="34" y="4">{text}</text></g>'
        )
    return parts


def _kills(story: Story, plot: Plot) -> list[str]:
    """Draw a cross at each kill, with a label above it."""
    parts = []
    for number, cut in enumerate(story.interruptions):
        x, y = plot.x(cut.step), plot.y(story.killed[cut.step - 1])
        label = TOP + 50 + 48 * number if number else TOP + 20
        parts.append(
            f'<g class="at-{number}"><line class="leader" x1="{x:.1f}" x2="{x:.1f}" '
            f'y1="{label - 10}" y2="{y - 9:.1f}"/>'
            f'<path class="kill" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"/>'
            f'<text class="cause" x="{x + 8:.1f}" y="{label}">'
            f"{escape(cut.victim)} killed at step {cut.step}</text></g>"
        )
        parts.append(
            f'<text class="minor after-{number}" x="{x + 8:.1f}" y="{label + LABEL_LINE}">'
            f"{escape(REMEDIES[cut.victim].format(cut.from_step))}</text>"
        )
    return parts


def _animations(story: Story, plot: Plot, clock: Clock) -> str:
    """Return the animations, for readers who have not asked for reduced motion."""
    frames = {
        "sweep": _sweep(plot, clock),
        "reach": _reach(plot, clock),
        "pen": _pen(story, plot, clock),
        "same": _appear(clock, clock.passes[-1].end),
    }
    for number, (before, after) in enumerate(pairwise(clock.passes)):
        frames[f"at-{number}"] = _appear(clock, before.end)
        frames[f"after-{number}"] = _appear(clock, after.begin)
    rules = [".lost { visibility: visible }"]
    for name, steps in frames.items():
        text = " ".join(f"{when} {{ {what} }}" for when, what in steps)
        rules.append(f"@keyframes {name} {{ {text} }}")
        rules.append(f".{name} {{ animation: {name} {clock.seconds:.2f}s linear {REPETITIONS} }}")
    return "@media (prefers-reduced-motion: no-preference) {\n" + "\n".join(rules) + "\n}\n"


def _appear(clock: Clock, seconds: float) -> list[Keyframe]:
    return [
        ("0%", "opacity: 0"),
        (clock.percent(seconds), "opacity: 0"),
        (clock.percent(seconds + 0.2), "opacity: 1"),
        ("100%", "opacity: 1"),
    ]


def _shift(x: float) -> str:
    """Return the transform that moves the right edge of a clip to x."""
    return f"transform: translateX({x - CLIP_WIDTH:.1f}px)"


def _sweep(plot: Plot, clock: Clock) -> list[Keyframe]:
    """Move the clip of the curve: forwards in each pass, and back to the checkpoint between two."""
    frames = [("0%", _shift(LEFT))]
    for one in clock.passes:
        frames.append((clock.percent(one.begin - BACK_SECONDS / 2), frames[-1][1]))
        frames.append((clock.percent(one.begin), _shift(plot.x(one.first))))
        frames.append((clock.percent(one.end), _shift(plot.x(one.last))))
    return [*frames, ("100%", _shift(CLIP_WIDTH))]


def _reach(plot: Plot, clock: Clock) -> list[Keyframe]:
    """Move the clip of the faint curve, which shows the furthest step so far."""
    frames = [("0%", _shift(LEFT))]
    furthest = 1
    for one in clock.passes:
        new = one.begin + (furthest - one.first) * STEP_SECONDS
        frames.append((clock.percent(new), _shift(plot.x(furthest))))
        frames.append((clock.percent(one.end), _shift(plot.x(one.last))))
        furthest = one.last
    return [*frames, ("100%", _shift(CLIP_WIDTH))]


def _pen(story: Story, plot: Plot, clock: Clock) -> list[Keyframe]:
    """Move the pen along the curve; it is transparent between two passes."""
    frames = [("0%", "opacity: 0")]
    for one in clock.passes:
        steps = range(one.first, one.last + 1)
        places = [
            f"transform: translate({plot.x(step):.1f}px,{plot.y(story.killed[step - 1]):.1f}px)"
            for step in steps
        ]
        frames.append((clock.percent(one.begin - 0.02), f"{places[0]}; opacity: 0"))
        for step, place in zip(steps, places, strict=True):
            when = one.begin + (step - one.first) * STEP_SECONDS
            visible = "; opacity: 1" if step in (one.first, one.last) else ""
            frames.append((clock.percent(when), place + visible))
        frames.append((clock.percent(one.end + 0.02), f"{places[-1]}; opacity: 0"))
    return [*frames, ("100%", "opacity: 0")]
