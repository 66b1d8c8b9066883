"""Packages that optional features need, for messages about missing packages.

The packages are the extras of pyproject.toml, by the name of the extra.
"""

OPTIONAL_PACKAGES = {
    "parquet": "pyarrow>=22,<27",
    "tensorboard": "tensorboard>=2.20,<2.22",
    "ctranslate2": "ctranslate2>=4.8,<4.9",
    "notify": "apprise>=2.1",
}


def install_command(feature: str) -> str:
    """Return the pip command that installs the package of a feature."""
    return f"pip install '{OPTIONAL_PACKAGES[feature]}'"
