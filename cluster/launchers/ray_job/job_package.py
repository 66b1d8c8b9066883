"""Files that are uploaded with a job: only code that the nodes lack.

Files are selected one by one, and no directory is uploaded as a whole. Datasets, runs, .git, .venv,
.env and keys therefore stay on this machine, even if they are next to the code. Of transloom, only
the files of its wheel are uploaded.
"""

import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_unpacking import EXTENSIONS
from cluster.package_files import package_files
from cluster.packages import INSTALLATION
from cluster.recipe import Recipe
from foundation.extensions import FOLDER_VARIABLE
from foundation.wording import byte_count, counted

MAX_BYTES = 20_000_000
LARGEST_LISTED = 5
DISTRIBUTION = "transloom"


def installed_sources() -> dict[str, Path]:
    """Return the files of the installed transloom, by their names in the uploaded directory.

    The installation's metadata is included, so that the nodes know the version.
    """
    files = dict(package_files(INSTALLATION))
    distribution = metadata.distribution(DISTRIBUTION)
    folder = f"{DISTRIBUTION}-{distribution.version}.dist-info"
    for entry in distribution.files or []:
        if entry.name == "METADATA" and entry.parent.name.endswith(".dist-info"):
            files[f"{folder}/METADATA"] = Path(str(entry.locate()))
    return files


def extension_files(recipe: Recipe) -> dict[str, Path]:
    """Return the Python files of a recipe's extensions, by their names in the extension folder.

    Extensions that are installed packages are not included; they must also be installed on the
    nodes.
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
    """Return all files to upload with the job of a recipe, by their names in the upload.

    Raises:
        ClusterError: the files are too large in total; the message names the largest files.
    """
    files = installed_sources() if with_code else {}
    files |= {f"{EXTENSIONS}/{name}": path for name, path in extension_files(recipe).items()}
    check_size(files)
    return files


def check_size(files: Mapping[str, Path]) -> None:
    """Check that files are small enough to be uploaded with a job.

    Raises:
        ClusterError: the files are too large in total.
    """
    sizes = {path: path.stat().st_size for path in files.values()}
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return
    largest = sorted(sizes, key=lambda path: -sizes[path])[:LARGEST_LISTED]
    told = ", ".join(f"{path} ({byte_count(sizes[path])})" for path in largest)
    raise ClusterError(
        f"{counted(len(files), 'file')} with {byte_count(total)} would be uploaded with the job, "
        f"but at most {byte_count(MAX_BYTES)} are allowed. The largest files are {told}. Move data "
        "out of the extensions' packages to storage that the nodes see, such as next to the dataset"
    )
