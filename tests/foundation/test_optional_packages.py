"""Messages name optional packages with the requirements of pyproject.toml."""

import tomllib
from pathlib import Path

from foundation.optional_packages import OPTIONAL_PACKAGES, install_command

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_optional_packages_equal_the_extras_of_the_project() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {name: [OPTIONAL_PACKAGES[name]] for name in extras.keys() - {"dev"}} == {
        name: packages for name, packages in extras.items() if name != "dev"
    }


def test_the_install_command_quotes_the_requirement() -> None:
    assert install_command("parquet") == f"pip install '{OPTIONAL_PACKAGES['parquet']}'"
