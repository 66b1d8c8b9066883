"""Home of the user."""

from pathlib import Path


def home_folder() -> Path:
    """Return the user's home, or / if the user has none, as Docker sets HOME for an unknown uid."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")
