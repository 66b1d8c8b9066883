"""Write access to a folder, for this user and for other users of the machine.

Needs Python's standard library only: `cluster.ray.exposure` sends this file's text to the head
node of a cluster, which runs it there.
"""

import os
import stat
from pathlib import Path


def existing_part(path: Path) -> Path:
    """Return the path itself, or the nearest folder around it that this user finds."""
    path = path.absolute()
    # Path.exists would raise for one in a folder that may not be entered.
    return next(part for part in (path, *path.parents) if _has_permission(part, os.F_OK))


def write_problem(folder: Path) -> str | None:
    """Return why this user cannot make a folder or write into it; None if nothing is in the way."""
    there = existing_part(folder)
    if not there.is_dir():
        return f"{there} is a file"
    if _has_permission(there, os.W_OK | os.X_OK):
        return None
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} lies on a file system that is mounted read-only"
    status = there.stat()
    return (
        f"{there} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):04o}), and "
        f"this is user {os.geteuid()}"
    )


def access_by_others(folder: Path) -> str | None:
    """How other users get at what lies in a folder, in words; None if they cannot.

    They cannot if some folder on the way to it, or itself, may be entered by its owner only, and
    nobody else may put another one in its place.
    """
    if way := replaceable_by_others(folder):
        return way
    folder = folder.resolve()
    if any(_is_closed(step.stat()) for step in [folder, *folder.parents]):
        return None
    return f"other users may enter {folder.parent}"


def replaceable_by_others(folder: Path) -> str | None:
    """How other users may replace a folder or what lies in it, in words; None if they cannot.

    Whoever owns the folder is trusted, and so are root and this user.
    """
    folder = folder.resolve()
    # In a user namespace root outside of it has another number, and owns the uppermost folder.
    trusted = {0, os.geteuid(), folder.stat().st_uid, Path("/").stat().st_uid}
    for step in reversed([folder, *folder.parents]):
        status = step.stat()
        if status.st_uid not in trusted:
            return f"{step} belongs to another user ({status.st_uid})"
        if _is_closed(status):
            return None
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            mode = stat.S_IMODE(status.st_mode)
            return f"other users may replace what lies in {step} (mode {mode:04o})"
    return None


def _has_permission(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_closed(status: os.stat_result) -> bool:
    return not status.st_mode & 0o011  # with an ACL, the group's bits are its mask
