"""Puts recipes/ into the wheel as cluster/recipes, where the installed command finds them.

An editable installation reads recipes/ itself: a copy of it would grow old.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RecipesHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["recipes"] = "cluster/recipes"
