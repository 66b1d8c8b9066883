"""The scripts of the live part, in the order in which they stand in the page."""

from importlib.resources import files

# What computes; a test runs it in Node.
ENGINE = (
    "slices.js",
    "tensors.js",
    "normaliser.js",
    "pieces.js",
    "forward.js",
    "search.js",
    "loading.js",
)

# What a reader asks of it; needs no page, and is tested in Node, too.
ANSWERS = (
    "places.js",
    "origins.js",
    "computing.js",
    "lens.js",
    "heads.js",
    "shapes.js",
    "beam_tree.js",
    "training.js",
)

# What shows it.
VIEW = (
    "grid.js",
    "together.js",
    "translation_view.js",
    "steps_view.js",
    "heads_view.js",
    "matrices_view.js",
    "origin_view.js",
    "switches_view.js",
    "tree_drawing.js",
    "tree_panel.js",
    "dropout_panel.js",
    "training_panel.js",
    "whose.js",
    "panel.js",
)


def script(names: tuple[str, ...]) -> str:
    """These scripts as one."""
    folder = files("transloom.observe.explain.live") / "page"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def style() -> str:
    """The style of what these scripts show."""
    return (files("transloom.observe.explain.live") / "live.css").read_text(encoding="utf-8")
