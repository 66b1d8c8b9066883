"""Local folders with copies of runs in an object store.

::

    CACHE/runs/<hash of the URL>/NAME       the folder in which a node trains the run
    CACHE/views/<hash of the prefix>/NAME   the copy that commands read

A checkpoint in such a folder has no state files but `parts.json`, which names their URL. Reading
them sends requests with the user's credentials, so the user must have named that URL: its folder is
in the cache under the URL's hash, or was made by this process.
"""

import hashlib
from pathlib import Path

from run_store.errors import CheckpointError

# URLs of runs, by the folders into which this process copies them.
_copies: dict[Path, str] = {}


def mirror_folder(url: str) -> Path:
    """Return the folder on this node in which a run in an object store is trained."""
    return _folder("runs", url)


def view_folder(url: str) -> Path:
    """Return the folder on this node with the copy that commands read."""
    parent, _, name = url.rpartition("/")
    return views_folder(parent) / name


def views_folder(url: str) -> Path:
    """Return the folder on this node with the copies of runs directly below a prefix."""
    return _folder("views", url).parent


def _folder(kind: str, url: str) -> Path:
    from data_pipeline.storage.locations import cache_folder  # imports pydantic

    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_folder(None).absolute() / kind / digest / url.rpartition("/")[2]


def register_copy(folder: Path, url: str) -> None:
    """Record that this process copies the run at a URL into a folder."""
    _copies[folder.resolve()] = url


def require_named_url(checkpoint: Path, url: str) -> None:
    """Check that the user has named the URL at which a checkpoint's state files are.

    Args:
        checkpoint: the local folder of the checkpoint, without state files.
        url: the location of its objects, from `parts.json`.

    Raises:
        CheckpointError: the folder is neither in the cache under that URL nor a copy of this
            process; it may come from another user.
    """
    for folder in checkpoint.resolve().parents:
        run = _copies.get(folder)
        if (run and url.startswith(f"{run}/")) or folder in _cache_entries(url):
            return
    run = url.partition("/owners/")[0]
    raise CheckpointError(
        f"{checkpoint} says that its state files are at {url}, which no command has named, so "
        "nothing is requested from there. If you trust it, name the run by its URL instead of the "
        f"folder: `transloom checkpoints verify {run}`"
    )


def _cache_entries(url: str) -> set[Path]:
    """Return the folders in the cache for a run at a URL, or at one of the prefixes above it."""
    names = url.split("/")
    runs = ("/".join(names[:count]) for count in range(4, len(names) + 1))
    return {folder(run).resolve() for run in runs for folder in (mirror_folder, view_folder)}
