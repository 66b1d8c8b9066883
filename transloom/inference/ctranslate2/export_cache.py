"""Cache of a run's CTranslate2 models, so that each checkpoint is converted only once.

    engines/ctranslate2/CHECKPOINT-HASH/    the model's files, written by `conversion`
      export.json                           the model's origin, and the sha256 of each file

A model is written into a hidden folder, which is renamed when it is complete. To load a model, its
files are read into memory and compared with the hashes. CTranslate2 loads the model from that
memory, so later changes to the files have no effect. If two processes convert the same checkpoint
at the same time, one of the two models is kept. Damaged models are converted again, and models of
removed checkpoints are deleted. If the run folder is not writable, a private temporary folder is
used.
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
from foundation.file_model import SMALL, Count, FileModel, parse_object
from foundation.untrusted_text import logger_of
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.format import HEADER
from transloom.inference.ctranslate2.library import library

CARD = "export.json"
HASH_CHARACTERS = 16
UNFINISHED = ".unfinished"
UNFINISHED_MAX_AGE_SECONDS = 24 * 3600  # older unfinished folders are those of killed processes

# Error numbers which mean that the run folder is not writable, while the run itself is intact.
CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}

Files = dict[str, bytes]  # contents by file name
Write = Callable[[Path], None]  # function that writes a model's files into a folder

logger = logger_of(__name__)


class ExportOrigin(FileModel):
    """Everything that determines a converted model.

    Attributes:
        checkpoint: name of the checkpoint.
        checkpoint_sha256: hash of the checkpoint's checkpoint.json, which lists the sha256 of every
            other file.
        positions: number of rows of the position table.
        library: release of CTranslate2 that wrote the model.
        form: version of the format that `conversion` writes; models of other versions are not used.
    """

    checkpoint: str
    checkpoint_sha256: str
    positions: Count
    library: str
    form: Literal[1] = 1


class ExportMetadata(FileModel):
    """Contents of export.json: a model's origin, and the sha256 of each of its files."""

    version: Literal[1] = 1
    origin: ExportOrigin
    files: dict[str, str]


def origin_of(checkpoint: Checkpoint, positions: int) -> ExportOrigin:
    """Return the origin of a model that the installed CTranslate2 converts from a checkpoint.

    Raises:
        EngineError: CTranslate2 is not installed.
    """
    return ExportOrigin(
        checkpoint=checkpoint.path.name,
        checkpoint_sha256=sha256_of(checkpoint.path / HEADER),
        positions=positions,
        library=str(library().__version__),
    )


def cached_files(engines: Path, origin: ExportOrigin, write: Write) -> Files:
    """Return the verified files of a model; convert the model first if no intact copy is cached.

    Args:
        engines: the run's folder for models of other engines.
        write: converts the model, and writes its files into the given folder.

    Raises:
        OSError: the files can be written neither into the run folder nor into a temporary folder,
            or writing fails for a reason that is not in CANNOT_WRITE.
    """
    name = f"{origin.checkpoint}-{origin.checkpoint_sha256[:HASH_CHARACTERS]}"
    folder = engines / "ctranslate2" / name
    files = _intact(folder, origin)
    if files is not None:
        return files
    unfinished = folder.with_name(f".{name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        unfinished.mkdir(parents=True)
        files = _made(unfinished, origin, write)
        _publish(unfinished, folder)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        logger.warning(
            "%s cannot be written (%s), so the model is converted into a temporary folder. The "
            "next command converts it again",
            folder,
            error.strerror,
        )
        with tempfile.TemporaryDirectory(prefix="transloom-") as temporary:
            return _made(Path(temporary), origin, write)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _remove_others(folder.parent, engines.parent / "checkpoints")
    return files


def _intact(folder: Path, origin: ExportOrigin) -> Files | None:
    """Return the files of a model, or None if it is missing, damaged or has another origin."""
    try:
        values = parse_object(read_regular(folder / CARD, SMALL.bytes))
        card = ExportMetadata.model_validate(values)
        if card.origin != origin or any(Path(name).name != name for name in card.files):
            return None
        files = {name: read_regular(folder / name) for name in card.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("The model in %s cannot be read (%s) and is converted again", folder, error)
        return None
    if any(_sha256(files[name]) != sha256 for name, sha256 in card.files.items()):
        logger.warning("The model in %s is damaged and is converted again", folder)
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


def _publish(unfinished: Path, folder: Path) -> None:
    """Rename a complete folder to its final name.

    An existing folder with the final name is replaced. Such a folder is damaged, or another process
    has just written it.
    """
    condemned = unfinished.with_name(f"{unfinished.name}-condemned{UNFINISHED}")
    try:
        with suppress(FileNotFoundError):
            folder.rename(condemned)
        unfinished.rename(folder)
    except OSError as error:
        # Another process published the same model between the two renames.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(condemned, ignore_errors=True)


def _remove_others(kept: Path, checkpoints: Path) -> None:
    """Remove the models of removed checkpoints, and unfinished folders of killed processes."""
    for folder in kept.iterdir():
        checkpoint = folder.name[: -HASH_CHARACTERS - 1]
        with suppress(OSError):
            if folder.name.endswith(UNFINISHED):
                gone = time.time() - folder.stat().st_mtime > UNFINISHED_MAX_AGE_SECONDS
            else:
                gone = not os.path.lexists(checkpoints / checkpoint)
            if gone:
                shutil.rmtree(folder, ignore_errors=True)
