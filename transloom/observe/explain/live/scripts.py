"""List the scripts of the live part, in the order in which the page contains them."""

from importlib.resources import files

# Scripts that compute; a test runs them in Node.
ENGINE = (
    "slices.js",
    "tensors.js",
    "normaliser.js",
    "pieces.js",
    "forward.js",
    "search.js",
    "loading.js",
)

# Scripts that answer the reader's questions; they need no page, and are also tested in Node.
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

# Scripts that show results.
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
    "first_screen_view.js",
    "panel.js",
)


def script(names: tuple[str, ...]) -> str:
    """Return the text of these scripts as one script."""
    folder = files("transloom.observe.explain.live") / "page"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def style() -> str:
    """Return the style of the elements that these scripts show."""
    return (files("transloom.observe.explain.live") / "live.css").read_text(encoding="utf-8")
