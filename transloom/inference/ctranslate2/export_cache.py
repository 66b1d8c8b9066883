"""The models of CTranslate2 that a run keeps, so that a checkpoint is converted once.

    engines/ctranslate2/CHECKPOINT-HASH/    what `conversion` writes, and
      export.json                           what it was made of, with the sha256 of each file

A model is written into a hidden folder, which gets its name when it is whole. Its bytes are
compared with the hashes, and these very bytes are loaded: what happens to the files meanwhile does
no harm. So two processes may make the same one at once (the first one's counts), a damaged one is
made anew, and one whose checkpoint the run no longer has is removed. Where nothing can be written,
a private temporary folder serves.
"""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from data_pipeline.storage.regular_files import read_regular
from foundation.untrusted_text import logger_of
from foundation.strict_json import SMALL, parse_object
from foundation.file_model import Count, FileModel
from trainer.checkpoints.format import HEADER, Checkpoint, sha256_of
from transloom.inference.ctranslate2.library import library

CARD = "export.json"
HASH_CHARACTERS = 16
UNFINISHED = ".unfinished"
SECONDS_TO_FINISH = 24 * 3600  # nobody has written at a folder for longer

# Why a folder of a run cannot be written: these are no errors of the run.
CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}

Files = dict[str, bytes]  # by name
Write = Callable[[Path], None]  # writes a model's files into a folder

logger = logger_of(__name__)


class ExportOrigin(FileModel):
    """What a model follows from.

    Attributes:
        checkpoint_sha256: of its checkpoint.json, which names the sha256 of every other file.
        positions: the rows of the table of positions.
        library: the release of CTranslate2 that wrote it.
        form: of `conversion`; another number is another model.
    """

    checkpoint: str
    checkpoint_sha256: str
    positions: Count
    library: str
    form: Literal[1] = 1


class ExportMetadata(FileModel):
    """export.json: what a model was made of, and the sha256 of each of its files."""

    version: Literal[1] = 1
    origin: ExportOrigin
    files: dict[str, str]


def origin_of(checkpoint: Checkpoint, positions: int) -> ExportOrigin:
    """What a checkpoint's model follows from here.

    Raises:
        EngineError: the library is not installed.
    """
    return ExportOrigin(
        checkpoint=checkpoint.path.name,
        checkpoint_sha256=sha256_of(checkpoint.path / HEADER),
        positions=positions,
        library=str(library().__version__),
    )


def cached_files(engines: Path, origin: ExportOrigin, write: Write) -> Files:
    """The files of a model, of which each byte is verified; made if the run does not have it.

    Args:
        engines: the run's folder for it.

    Raises:
        OSError: the folder, or a temporary one, fails for another reason than its permissions.
    """
    name = f"{origin.checkpoint}-{origin.checkpoint_sha256[:HASH_CHARACTERS]}"
    folder = engines / "ctranslate2" / name
    files = _intact(folder, origin)
    if files is not None:
        return files
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(f".{name}.{secrets.token_hex(4)}{UNFINISHED}")
        unfinished.mkdir()
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        return _made_elsewhere(folder, origin, write, error)
    try:
        files = _made(unfinished, origin, write)
        _publish(unfinished, folder)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        return _made_elsewhere(folder, origin, write, error)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _remove_others(folder.parent, engines.parent / "checkpoints")
    return files


def _intact(folder: Path, origin: ExportOrigin) -> Files | None:
    """The files of a model, if it is there, of this origin, and whole."""
    try:
        values = parse_object(read_regular(folder / CARD, SMALL.bytes))
        card = ExportMetadata.model_validate(values)
        if card.origin != origin or any(Path(name).name != name for name in card.files):
            return None
        files = {name: read_regular(folder / name) for name in card.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be used (%s) and is made anew", folder, error)
        return None
    if any(_sha256(files[name]) != sha256 for name, sha256 in card.files.items()):
        logger.warning("%s is damaged and is made anew", folder)
        return None
    return files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _made(folder: Path, origin: ExportOrigin, write: Write) -> Files:
    write(folder)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    hashes = {name: _sha256(data) for name, data in files.items()}
    card = ExportMetadata(origin=origin, files=hashes)
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return files


def _made_elsewhere(folder: Path, origin: ExportOrigin, write: Write, error: OSError) -> Files:
    logger.warning(
        "%s cannot be written (%s), so the model is converted into a temporary folder, and "
        "again the next time",
        folder,
        error.strerror,
    )
    with tempfile.TemporaryDirectory(prefix="transloom-") as temporary:
        return _made(Path(temporary), origin, write)


def _publish(unfinished: Path, folder: Path) -> None:
    """Give a whole folder its name; what had it was damaged, or is another process's work."""
    condemned = unfinished.with_name(f"{unfinished.name}-condemned{UNFINISHED}")
    try:
        with suppress(FileNotFoundError):
            folder.rename(condemned)
        unfinished.rename(folder)
    except OSError as error:
        # Another process was faster, after this one had looked. Its model is the same.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(condemned, ignore_errors=True)


def _remove_others(kept: Path, checkpoints: Path) -> None:
    """Remove models whose checkpoint is gone, and what killed processes have left."""
    for folder in kept.iterdir():
        checkpoint = folder.name[: -HASH_CHARACTERS - 1]
        with suppress(OSError):
            if folder.name.endswith(UNFINISHED):
                gone = time.time() - folder.stat().st_mtime > SECONDS_TO_FINISH
            else:
                gone = not os.path.lexists(checkpoints / checkpoint)
            if gone:
                shutil.rmtree(folder, ignore_errors=True)
