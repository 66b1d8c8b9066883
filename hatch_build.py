"""Put the folder recipes/ into the wheel, as cluster/recipes.

The installed command finds them there. An editable installation reads recipes/ itself: a copy of it
would grow old.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface):
    """See above. `version` is "standard" or "editable"."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"]["recipes"] = "cluster/recipes"
