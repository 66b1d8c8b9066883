"""Home directory of the user."""

from pathlib import Path


def home_folder() -> Path:
    """Return the user's home directory; / if there is none, as in Docker with an unknown uid."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")
