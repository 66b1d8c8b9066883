"""The packages that messages name are those of pyproject.toml."""

import tomllib
from pathlib import Path

from foundation.optional_packages import OPTIONAL_PACKAGES, install_command

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_each_extra_has_its_package() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {name: [OPTIONAL_PACKAGES[name]] for name in extras.keys() - {"dev"}} == {
        name: packages for name, packages in extras.items() if name != "dev"
    }


def test_a_command_is_quoted_for_a_shell() -> None:
    assert install_command("parquet") == f"pip install '{OPTIONAL_PACKAGES['parquet']}'"
