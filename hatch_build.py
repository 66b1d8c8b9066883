"""What a build adds to the sources.

- recipes/ goes into the wheel as cluster/recipes, where the installed command finds them. An
  editable installation reads recipes/ itself: a copy of it would grow old.
- data_pipeline/tokenizers/segmenter.c is compiled. Where that cannot be done, the wheel is for all
  machines and draws random segmentations in Python, the same ones.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TOKENIZERS = Path("data_pipeline/tokenizers")
SOURCE, LIBRARY = "segmenter.c", "libsegmenter.so"
# No shortcuts with floating-point numbers: the sums must be Python's to the bit.
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-fno-fast-math")


def compile_segmenter(source: Path, library: Path) -> None:
    """Compiles segmenter.c with $CC, by default cc; a library that is in use stays as it was.

    Raises:
        OSError: there is no such compiler.
        subprocess.CalledProcessError: it failed; `stderr` says why.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compiling-") as folder:
        made = Path(folder) / library.name
        command = [*shlex.split(os.environ.get("CC") or "cc"), *FLAGS]
        command += [f'-DSOURCE_SHA256="{digest}"', str(source), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(library)


class BuildHook(BuildHookInterface):
    """See above. `version` is "standard" or "editable"."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        place = Path(self.root) / TOKENIZERS
        if version == "editable":
            self._compile(place / SOURCE, place / LIBRARY)
            return
        build_data["force_include"]["recipes"] = "cluster/recipes"
        self._folder = tempfile.mkdtemp(prefix="transloom-build-")
        library = Path(self._folder) / LIBRARY
        if self._compile(place / SOURCE, library):
            build_data["force_include"][str(library)] = str(TOKENIZERS / LIBRARY)
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"  # no part of it depends on the Python

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self._folder)

    def _compile(self, source: Path, library: Path) -> bool:
        try:
            compile_segmenter(source, library)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or error
            self.app.display_warning(
                f"{source.name} is not compiled; subword sampling will draw in Python: {why}"
            )
            return False
        return True


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
