"""What the forms of norms, heads and feed-forward networks are called in a figure."""

ACTIVATION_NAMES = {
    "relu": "ReLU",
    "gelu": "GELU",
    "gelu_tanh": "GELU by tanh",
    "silu": "SiLU",
}
NORMS = {"layer": "layer norm", "rms": "RMS norm"}


def norm_title(kind: str, which: str = "") -> str:
    """The title of a norm's box; `which` stands before it, as in "last"."""
    title = f"{which} {NORMS[kind]}".lstrip()
    return title[0].upper() + title[1:]


def network_line(activation: str) -> str:
    """The matrices of a feed-forward network, and what is between them."""
    if activation == "swiglu":
        return "SwiGLU: (silu(xW) ⊙ xV) W₂"
    return f"W₁, {ACTIVATION_NAMES[activation]}, W₂"


def head_lines(heads: int, groups: int, *, rotated: bool) -> list[str]:
    """What attention has otherwise than the paper's."""
    lines = [] if groups == heads else [f"heads of keys, values: {groups}"]
    return [*lines, "queries, keys turned by position"] if rotated else lines
