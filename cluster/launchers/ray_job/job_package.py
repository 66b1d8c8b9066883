"""What travels with a job: the code that the nodes lack, and nothing else.

Files are named one by one; no folder is taken as it is. So datasets, runs, .git, .venv, .env and
keys stay here, wherever they lie. What is sent of transloom is what its wheel holds.
"""

import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_unpacking import EXTENSIONS
from cluster.packages import INSTALLATION
from cluster.ray.head_probe import package_files
from cluster.recipe import Recipe
from foundation.extensions import FOLDER_VARIABLE
from foundation.wording import counted

MAX_BYTES = 20_000_000
LARGEST_LISTED = 5
DISTRIBUTION = "transloom"


def installed_sources() -> dict[str, Path]:
    """The files of the transloom that runs here, by their names where they are unpacked.

    With what an installation says of itself, so that its version is known there.
    """
    files = dict(package_files(INSTALLATION))
    distribution = metadata.distribution(DISTRIBUTION)
    folder = f"{DISTRIBUTION}-{distribution.version}.dist-info"
    for entry in distribution.files or []:
        if entry.name == "METADATA" and entry.parent.name.endswith(".dist-info"):
            files[f"{folder}/METADATA"] = Path(str(entry.locate()))
    return files


def extension_files(recipe: Recipe) -> dict[str, Path]:
    """The Python files of a recipe's extensions that lie in a folder, by their names in it.

    Those that are installed packages are expected to be installed on the nodes, too.
    """
    folders = [recipe.extension_folder, os.environ.get(FOLDER_VARIABLE)]
    found: dict[str, Path] = {}
    for name in recipe.extensions:
        package = name.partition(".")[0]
        for folder in (Path(f).expanduser() for f in folders if f):
            if files := dict(_modules(folder, package)):
                found |= files
                break
    return found


def _modules(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    if (folder / package).is_dir():
        for path in sorted((folder / package).rglob("*.py")):
            name = path.relative_to(folder)
            if not any(part.startswith(".") for part in name.parts):
                yield name.as_posix(), path
    elif (folder / f"{package}.py").is_file():
        yield f"{package}.py", folder / f"{package}.py"


def sent_files(recipe: Recipe, *, with_code: bool) -> dict[str, Path]:
    """All files that travel with the job of a recipe, by their names there.

    Raises:
        ClusterError: they are too large; the largest ones are named.
    """
    files = installed_sources() if with_code else {}
    files |= {f"{EXTENSIONS}/{name}": path for name, path in extension_files(recipe).items()}
    check_size(files)
    return files


def check_size(files: Mapping[str, Path]) -> None:
    """Check that files are small enough to travel with a job.

    Raises:
        ClusterError: they are not.
    """
    sizes = {path: path.stat().st_size for path in files.values()}
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return
    largest = sorted(sizes, key=lambda path: -sizes[path])[:LARGEST_LISTED]
    told = ", ".join(f"{path} ({megabytes(sizes[path])})" for path in largest)
    raise ClusterError(
        f"{counted(len(files), 'file')} with {megabytes(total)} would travel with the job, and at "
        f"most {megabytes(MAX_BYTES)} may. The largest: {told}. Put data where the nodes find it, "
        "beside the dataset, and leave it out of the extensions' packages"
    )


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
