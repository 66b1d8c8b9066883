"""Old texts of validations, packed so that a run in an object store has fewer small files.

::

    translations/validation-00000500.txt, …     ─▶  translations/validation-00000500-00500000.zip
                                                     1,000 texts, oldest first
    the newest 1,000 to 2,000 texts stay as they are
"""

import re
import zipfile
from pathlib import Path

TEXTS_PER_ARCHIVE = 1_000
_TEXT = re.compile(r"validation-(\d{8,})\.txt")


def archive_validations(folder: Path) -> Path | None:
    """Pack the oldest texts of validations in a folder if there are two archives' worth of them.

    An interruption leaves texts that an archive also has; they are packed again.

    Returns:
        The new archive, or None if there are too few texts.

    Raises:
        OSError: the folder cannot be written.
    """
    if not folder.is_dir():
        return None
    texts = sorted(path for path in folder.iterdir() if _TEXT.fullmatch(path.name))
    if len(texts) < 2 * TEXTS_PER_ARCHIVE:
        return None
    packed = texts[:TEXTS_PER_ARCHIVE]
    last = packed[-1].stem.rpartition("-")[2]
    archive = folder / f"{packed[0].stem}-{last}.zip"
    unfinished = folder / f".{archive.name}.unfinished"
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as file:
        for path in packed:
            file.write(path, path.name)
    unfinished.replace(archive)
    for path in packed:
        path.unlink(missing_ok=True)
    return archive
