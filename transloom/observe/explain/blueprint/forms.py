"""Names of the variants of norms, heads and feed-forward networks in a figure."""

ACTIVATION_NAMES = {
    "relu": "ReLU",
    "gelu": "GELU",
    "gelu_tanh": "GELU by tanh",
    "silu": "SiLU",
}
NORMS = {"layer": "layer norm", "rms": "RMS norm"}


def norm_title(kind: str, which: str = "") -> str:
    """Return the title of a norm's box.

    Args:
        which: word before the title, such as "last".
    """
    title = f"{which} {NORMS[kind]}".lstrip()
    return title[0].upper() + title[1:]


def activation_name(activation: str) -> str:
    """Return the name of the activation between the matrices of a feed-forward network."""
    return ACTIVATION_NAMES.get(activation, "the gate")


def network_line(activation: str) -> str:
    """Describe a feed-forward network: its matrices, and the activation between them."""
    if activation == "swiglu":
        return "SwiGLU: (silu(xW) ⊙ xV) W₂"
    return f"W₁, {ACTIVATION_NAMES[activation]}, W₂"


def head_lines(heads: int, groups: int, *, rotated: bool) -> list[str]:
    """Return lines about the features of attention that the original paper does not have."""
    lines = [] if groups == heads else [f"heads of keys, values: {groups}"]
    return [*lines, "queries, keys rotated by position"] if rotated else lines
