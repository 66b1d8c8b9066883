"""Write access to a folder, for this user and for other users of the machine.

This file needs only Python's standard library, because `cluster.ray.exposure` sends its text to the
head node of a cluster, which runs it there.
"""

import os
import stat
from pathlib import Path


def existing_part(path: Path) -> Path:
    """Return the path itself, or its nearest parent folder that this user can access."""
    path = path.absolute()
    # Path.exists would raise for a path in a folder that this user may not enter.
    return next(part for part in (path, *path.parents) if _has_permission(part, os.F_OK))


def write_problem(folder: Path) -> str | None:
    """Describe why this user cannot write into a folder or create it; return None if possible."""
    there = existing_part(folder)
    if not there.is_dir():
        return f"{there} is a file"
    if _has_permission(there, os.W_OK | os.X_OK):
        return None
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is on a file system that is mounted read-only"
    status = there.stat()
    return (
        f"{there} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):04o}), but "
        f"this process runs as user {os.geteuid()}"
    )


def answer_probe(folder: Path, left: str, answer: str) -> str | None:
    """Check that this node shares a folder with the supervisor; return the error, or None.

    The node reads the supervisor's file, and creates a file next to it.

    Args:
        folder: the folder of both files.
        left: name of the supervisor's file.
        answer: name of the file to create.
    """
    try:
        (folder / left).read_bytes()
        (folder / answer).touch()
    except OSError as error:
        return error.strerror or str(error)
    return None


def access_by_others(folder: Path) -> str | None:
    """Describe how other users can access the content of a folder; return None if they cannot.

    Other users have no access if only the owner may enter the folder or one of its parents, and if
    no other user can replace the folder that only its owner may enter.
    """
    if way := replaceable_by_others(folder):
        return way
    folder = folder.resolve()
    if any(_is_closed(step.stat()) for step in [folder, *folder.parents]):
        return None
    return f"other users may enter {folder.parent}"


def replaceable_by_others(folder: Path) -> str | None:
    """Describe how other users can replace a folder or its content; return None if they cannot.

    The owner of the folder, root and this user are trusted.
    """
    folder = folder.resolve()
    # In a user namespace, the root user of the machine has another user id. That user owns `/`.
    trusted = {0, os.geteuid(), folder.stat().st_uid, Path("/").stat().st_uid}
    for step in reversed([folder, *folder.parents]):
        status = step.stat()
        if status.st_uid not in trusted:
            return f"{step} belongs to another user ({status.st_uid})"
        if _is_closed(status):
            return None
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            mode = stat.S_IMODE(status.st_mode)
            return f"other users may replace files in {step} (mode {mode:04o})"
    return None


def _has_permission(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_closed(status: os.stat_result) -> bool:
    return not status.st_mode & 0o011  # an ACL cannot grant users more than the group bits
