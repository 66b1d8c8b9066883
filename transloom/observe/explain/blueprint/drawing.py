"""Draw the figure of a network as SVG, for a page or as a separate file.

In a page, each box is a link to the section that shows its numbers.
"""

from collections.abc import Mapping

from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.layout import (
    FONT_SIZE,
    LINE,
    PADDING,
    ROUND,
    FigureLayout,
    FigureLine,
    Frame,
    Placed,
    Point,
    described,
    lay_out,
)
from transloom.observe.explain.markup import escape, page_file

ARROW = 5


def svg_file(blueprint: Blueprint, *, each_layer: bool = False) -> str:
    """Return a complete SVG file, which follows the light or dark mode of the reader's system."""
    style = f"<style>{page_file('palette.css')}{page_file('blueprint/figure.css')}</style>"
    layout = lay_out(blueprint, narrow=False, each_layer=each_layer)
    size = f'width="{layout.width:.0f}" height="{layout.height:.0f}"'
    attributes = f' xmlns="http://www.w3.org/2000/svg" class="blueprint alone" {size}'
    return _svg(blueprint, layout, key="figure", attributes=attributes, style=style)


def svg_parts(blueprint: Blueprint, places: Mapping[str, str], *, each_layer: bool) -> str:
    """Return the figure for a page as a wide and a narrow drawing; the style shows one of them.

    Args:
        places: the link to the part of the page that shows a box, by the box's key.
        each_layer: True to draw every layer; False to draw one layer that represents all.
    """
    drawn = []
    for form in ("wide", "narrow"):
        layout = lay_out(blueprint, narrow=form == "narrow", each_layer=each_layer)
        drawn.append(
            _svg(
                blueprint,
                layout,
                key=f"figure-{form}",
                attributes=f' class="blueprint {form}" style="max-width:{layout.width:.0f}px"',
                places=places,
            )
        )
    return "\n".join(drawn)


def _svg(
    blueprint: Blueprint,
    layout: FigureLayout,
    *,
    key: str,
    attributes: str,
    style: str = "",
    places: Mapping[str, str] | None = None,
) -> str:
    shapes = [  # in drawing order: later shapes cover earlier ones
        *(_frame(frame) for frame in layout.frames),
        *(_connection(line) for line in layout.connections),
        *(_box(placed, (places or {}).get(name)) for name, placed in layout.boxes.items()),
        *(_text(point, text, "title") for point, text in layout.titles),
    ]
    return (
        f'<svg{attributes} viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" role="group" '
        f'aria-labelledby="{key}-title {key}-description" font-size="{FONT_SIZE}">'
        f'<title id="{key}-title">{escape(blueprint.title)}</title>'
        f'<desc id="{key}-description">{escape(described(blueprint))}</desc>'
        f"{style}{''.join(shapes)}</svg>"
    )


def _box(placed: Placed, place: str | None) -> str:
    box = placed.box
    said = escape(". ".join([box.title, *box.lines]))
    if box.kind == "sum":
        radius = placed.width / 2
        centre = f'cx="{placed.x + radius:.1f}" cy="{placed.middle:.1f}"'
        shape = f'<circle {centre} r="{radius:.1f}"/>'
    else:
        corner = placed.height / 2 if box.kind in ROUND else 6
        shape = (
            f'<rect x="{placed.x:.1f}" y="{placed.y:.1f}" width="{placed.width:.1f}" '
            f'height="{placed.height:.1f}" rx="{corner:.1f}"/>'
        )
    first = placed.y + PADDING + 13 if box.kind != "sum" else placed.middle + 4.5
    middle = placed.x + placed.width / 2
    texts = [
        _text((middle, first + n * LINE), line, "" if n else "name", "middle")
        for n, line in enumerate(placed.lines)
    ]
    inside = shape + "".join(texts)
    name = f'class="box {box.kind}" data-box="{box.key}" aria-label="{said}"'
    if place is not None:
        return f'<a {name} href="{escape(place)}">{inside}</a>'
    return f'<g {name} role="img" tabindex="0">{inside}</g>'


def _frame(frame: Frame) -> str:
    number, size = frame.label
    y = frame.y + 18
    texts = _text((frame.x + 12, y), number, "label")
    texts += _text((frame.x + frame.width - 12, y), size, "label", "end")
    return (
        f'<rect class="frame" x="{frame.x:.1f}" y="{frame.y:.1f}" width="{frame.width:.1f}" '
        f'height="{frame.height:.1f}" rx="10"/>{texts}'
    )


def _text(point: Point, text: str, name: str = "", anchor: str = "") -> str:
    attributes = f' class="{name}"' if name else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{point[0]:.1f}" y="{point[1]:.1f}"{attributes}>{escape(text)}</text>'


def _connection(line: FigureLine) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
    drawn = f'<polyline class="line {line.kind}" points="{points}"/>'
    return drawn if line.kind == "shared" else drawn + _head(line)


def _head(line: FigureLine) -> str:
    """Draw the head of an arrow, at the end of its last segment (horizontal or vertical)."""
    (x, y), (end_x, end_y) = line.points[-2:]
    if end_x == x:
        back = ARROW * 1.6 if y > end_y else -ARROW * 1.6
        corners = ((end_x - ARROW, end_y + back), (end_x + ARROW, end_y + back))
    else:
        back = ARROW * 1.6 if x > end_x else -ARROW * 1.6
        corners = ((end_x + back, end_y - ARROW), (end_x + back, end_y + ARROW))
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in ((end_x, end_y), *corners))
    return f'<polygon class="head {line.kind}" points="{points}"/>'
