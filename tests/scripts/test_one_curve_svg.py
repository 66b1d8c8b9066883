"""The image of a killed run, drawn from the lines of metrics files."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.records.lines import train_line, validation_line
from support.scripts import imported_script

from run_store.record.metrics_lines import ReplayMismatch, Resumed

MODULE = Path(__file__).resolve().parents[2] / "scripts/one_curve_svg.py"
SVG = "{http://www.w3.org/2000/svg}"
STEPS = 12


@pytest.fixture(scope="module")
def picture():
    with imported_script("one_curve_svg.py") as module:
        yield module


def steps(first, last):
    return [train_line(step, loss=8.0 - step / 2) for step in range(first, last + 1)]


UNDISTURBED = [*steps(1, STEPS), validation_line(STEPS)]
KILLED = [
    *steps(1, 4),
    Resumed(step=4, from_step=3),
    *steps(5, 9),
    Resumed(step=9, from_step=6),
    *steps(10, STEPS),
    validation_line(STEPS),
]
VICTIMS = ["driver", "rank"]


@pytest.fixture(scope="module")
def story(picture):
    return picture.read_story(UNDISTURBED, KILLED, VICTIMS)


@pytest.fixture(scope="module")
def svg(picture, story):
    return picture.draw(story)


def elements(svg, name):
    return [
        e for e in ElementTree.fromstring(svg).iter() if e.get("class", "").split()[:1] == [name]
    ]


def points(path):
    return [tuple(map(float, p.split())) for p in path.get("d").strip("Mz").split("L")]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_read_story_returns_losses_and_interruptions(story):
    assert story.steps == STEPS
    assert story.killed == story.undisturbed == [8.0 - step / 2 for step in range(1, STEPS + 1)]
    cuts = [(cut.victim, cut.step, cut.from_step) for cut in story.interruptions]
    assert cuts == [("driver", 4, 3), ("rank", 9, 6)]


def test_both_curves_have_a_point_for_each_step(svg):
    (undisturbed,) = [e for e in elements(svg, "undisturbed") if e.get("d")]
    (curve,) = [e for e in elements(svg, "curve") if e.get("d")]
    assert len(points(undisturbed)) == STEPS
    assert points(curve) == points(undisturbed)


def test_kills_are_marked_on_the_curve(svg):
    (curve,) = [e for e in elements(svg, "curve") if e.get("d")]
    crosses = [
        re.match(r"M([\d.]+) ([\d.]+)l10 10m0 -10l-10 10$", e.get("d"))
        for e in elements(svg, "kill")
    ]
    centres = [(float(m[1]) + 5, float(m[2]) + 5) for m in crosses]
    assert centres == [pytest.approx(points(curve)[step - 1], abs=0.11) for step in (4, 9)]
    assert {"driver killed at step 4", "rank killed at step 9"} <= set(texts(svg))
    assert f"{STEPS} of {STEPS} steps: same losses to the last bit" in texts(svg)


def test_repeated_steps_are_shaded(svg, picture, story):
    plot = picture.Plot(story)
    shaded = [e for e in elements(svg, "repeated") if e.get("d")]
    edges = [(min(x for x, _ in points(e)), max(x for x, _ in points(e))) for e in shaded]
    expected = [(plot.x(3), plot.x(4)), (plot.x(6), plot.x(9))]
    assert edges == [pytest.approx(pair, abs=0.06) for pair in expected]


def test_the_animation_repeats_the_steps_after_each_checkpoint(picture, story):
    clock = picture.Clock(story)
    assert [(one.first, one.last) for one in clock.passes] == [(1, 4), (3, 9), (6, STEPS)]
    assert all(one.begin < one.end for one in clock.passes)
    assert all(a.end < b.begin for a, b in zip(clock.passes, clock.passes[1:], strict=False))


def test_keyframes_are_sorted_and_respect_reduced_motion(svg):
    default, animated = svg.split("@media (prefers-reduced-motion: no-preference)")
    assert "animation" not in default
    frames = re.findall(r"@keyframes [\w-]+ \{ (.*) \}", animated)
    assert len(frames) == 8  # curve, furthest step, pen and result; two for each kill
    for one in frames:
        percentages = [float(p) for p in re.findall(r"([\d.]+)% \{", one)]
        assert percentages == sorted(percentages)
        assert (percentages[0], percentages[-1]) == (0, 100)


def test_the_animation_of_a_run_without_kills_has_one_pass(picture):
    story = picture.read_story(UNDISTURBED, steps(1, STEPS), [])
    assert len(picture.Clock(story).passes) == 1
    assert elements(picture.draw(story), "kill") == []


def test_after_a_kill_before_the_first_checkpoint_a_pass_starts_at_step_1(picture):
    killed = [*steps(1, 4), Resumed(step=4, from_step=0), *steps(5, STEPS)]
    story = picture.read_story(UNDISTURBED, killed, ["rank"])
    assert picture.Clock(story).passes[1].first == 1
    ElementTree.fromstring(picture.draw(story))


@pytest.mark.parametrize(
    ("killed", "message"),
    [
        ([*steps(1, 11), train_line(12, loss=2.0 + 2**-50)], "step 12 differs"),
        ([*steps(1, 11), train_line(12, loss=2.0, data_digest="x")], "step 12 differs"),
        (steps(1, 11), "12 and 11 steps"),
        ([*steps(1, 12), Resumed(step=12, from_step=3)], "resumed 1 times, expected 0"),
        (
            [*steps(1, 12), ReplayMismatch(step=12, replayed_step=7, fields={"loss": [1, 2]})],
            "step 7 differed",
        ),
    ],
)
def test_read_story_refuses_runs_that_differ(picture, killed, message):
    with pytest.raises(ValueError, match=message):
        picture.read_story(UNDISTURBED, killed, [])


def test_the_committed_image_has_120_steps_and_two_kills():
    file = MODULE.parents[1] / "docs/images/one-curve.svg"
    assert file.stat().st_size < 40_000
    svg = file.read_text(encoding="utf-8")
    (curve,) = [e for e in elements(svg, "curve") if e.get("d")]
    assert len(points(curve)) == 120
    assert len(elements(svg, "kill")) == 2
