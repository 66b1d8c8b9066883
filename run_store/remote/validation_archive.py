"""Archives of old validations' texts, so that a run in an object store has few small files."""

import re
import zipfile
from pathlib import Path

TEXTS_PER_ARCHIVE = 1_000
_TEXT = re.compile(r"validation-(\d{8,})\.txt")


def archive_validations(folder: Path) -> Path | None:
    """Pack the oldest texts of validations in a folder, if there are enough for two archives.

    After an interruption, texts may be both in the folder and in an archive; they are packed again.

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
