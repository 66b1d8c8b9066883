"""Build the parts of the first section that are the same for every model."""

from collections.abc import Sequence

from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.form import Form
from transloom.observe.explain.parts import Heading, Part, Table, Text

LAYERS_DRAWN = 2  # a stack of more layers is drawn as one layer, labelled "N ×"


def about_figure(blueprint: Blueprint, of_what: str) -> list[Part]:
    """Return the introduction of the figure.

    Args:
        of_what: noun for the input of the model, such as "sentence".
    """
    return [
        Heading("The model as a figure"),
        Text(
            "Each box shows its shapes and its number of parameters. The numbers add up to the "
            f"model's {blueprint.parameters:,} parameters. Choose a box to see its numbers for "
            f"this {of_what}. Rows of numbers go upwards along the arrows."
        ),
    ]


def model_table(
    layers: str, form: Form, blueprint: Blueprint, pieces: int, checkpoint: str
) -> Table:
    """Return a table of the sizes of a model.

    Args:
        layers: description of the numbers of layers.
        pieces: the size of the vocabulary.
    """
    norm = "before each sub-layer (pre-norm)" if form.pre_norm else "after each sum (post-norm)"
    heads = f"{form.heads}, each {form.head_width} wide"
    if form.groups != form.heads:
        heads += f"; {form.groups} of keys and values"
    rows = [
        ("layers", layers),
        ("width", f"{form.width} numbers for each piece"),
        ("heads", heads),
        ("feed-forward", f"{form.inner_width} inner numbers"),
        ("normalisation", norm if form.norm_kind == "layer" else f"{form.norm}, {norm}"),
        ("pieces", f"{pieces:,}"),
        ("parameters", f"{blueprint.parameters:,}"),
        ("weights", checkpoint),
    ]
    return Table(["property", "of this model"], rows)


def how_to_read(cuts: Sequence[str]) -> list[Part]:
    """Explain how to use the page.

    Args:
        cuts: descriptions of content that the page leaves out.
    """
    parts: list[Part] = [
        Heading("How to read this page"),
        Text(
            "Use the buttons above to go to the next or previous section, or choose a section in "
            "the list. Each coloured field is a matrix of real numbers of this model. Point at a "
            "cell to read its number, or use the tab key to reach a matrix and the arrow keys to "
            "move between cells. Blue is positive, orange is negative, and the colour of the page "
            "is zero. Each map shows which number has the full colour. With the menu above, all "
            "signed maps of a section can have the same scale."
        ),
    ]
    if cuts:
        parts.append(Text(f"To stay small, this page shows {'; '.join(cuts)}."))
    return parts
