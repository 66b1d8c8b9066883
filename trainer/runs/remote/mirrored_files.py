"""Small files of a run folder in an object store, uploaded by the run's owner.

run folder ──changed files──▶ objects ──▶ FileTable of the head
additions of other processes ──▶ run folder, from which they are uploaded as the owner's files
old texts of validations ──1,000 in a file──▶ validation-00000500-00500000.zip
"""

import re
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from data_pipeline.storage.object_errors import ObjectMissingError, ObjectStoreError
from data_pipeline.storage.object_store import ObjectStore
from trainer.errors import RunMismatchError
from trainer.runs.folder import RunFolder
from trainer.runs.remote import file_table
from trainer.runs.remote.file_table import FilePart, Files, FileTable, IndexPart, put_part, usage
from trainer.runs.remote.files import UploadedFiles
from trainer.runs.remote.head import RunHead
from trainer.runs.remote.pull import RunPuller

# If there are more files than `MAX_ENTRIES` in the head, those that changed least recently move to
# the index, except for this number.
ENTRIES_LEFT = 16
TEXTS_PER_ARCHIVE = 1_000
_TEXT = re.compile(r"validation-(\d{8,})\.txt")


class MirroredFiles:
    """Files of a run folder, and their parts in the object store."""

    def __init__(
        self, folder: RunFolder, store: ObjectStore, announce: Callable[[str], None]
    ) -> None:
        """Prepare the upload without any request.

        Args:
            announce: receives messages about files that are not stored.
        """
        self._folder = folder
        self._store = store
        self._url = store.url
        self._announce = announce
        self._puller = RunPuller(store, folder.path, keeps_jobs=True)
        self._uploaded = UploadedFiles(folder.path)
        self._indexed: set[str] = set()  # files that the index names
        self._last_changes: dict[str, float] = {}
        self._taken: Files = {}  # files that other processes have added
        self._refused: set[str] = set()  # files that were announced as not stored

    @property
    def parts(self) -> Files:
        """Parts of the files in the object store."""
        return self._uploaded.parts

    def pull(self, head: RunHead) -> None:
        """Make the folder equal to the run; additions of other processes are not taken yet."""
        self._puller.pull(head, with_additions=False)
        indexed = self._puller.tables.indexed(head.files).keys()
        self._indexed = set(indexed - head.files.entries.keys())
        self._uploaded.parts = self._puller.tables.files(head.files)
        self._uploaded.mark_unchanged()

    def upload(self, head: RunHead) -> FileTable:
        """Upload what has changed, and return the table of all files.

        Args:
            head: the run's head, whose owner is this process.
        """
        prefix = f"{head.owner.folder}/files"
        self._upload_changes(prefix)
        index = self._new_index(head.files, prefix)
        entries = {k: v for k, v in self.parts.items() if k not in self._indexed}
        return FileTable(entries=entries, index=index)

    def take_additions(self, table: FileTable) -> Files:
        """Fetch the files that other processes have added to the run, and return their parts.

        They are uploaded as files of the owner next. Each is fetched once, although the head may
        name it for some more rounds if the object store does not answer. One that is damaged, or
        cannot be a file of this folder, is left out.
        """
        additions = self.additions(table)
        for name, parts in additions.items():
            if parts not in (self.parts.get(name), self._taken.get(name)):
                self._take(name, parts)
            self._taken[name] = parts
        return additions

    def additions(self, table: FileTable) -> Files:
        """Return the parts of files that other processes have added; none from a damaged index."""
        try:
            return self._puller.tables.files(table)
        except (RunMismatchError, ObjectMissingError) as error:
            self._refuse("additions", f"files that were added are left out: {error}")
            return dict(table.entries)

    def _take(self, name: str, parts: list[FilePart]) -> None:
        try:
            self._puller.fetcher.fetch(name, parts)
        except ObjectStoreError as error:
            if not isinstance(error, ObjectMissingError):
                raise
            self._refuse(name, f"the file {name!r}, which was added, is left out: {error}")
        except (RunMismatchError, OSError) as error:  # an OSError if it is a directory here
            self._refuse(name, f"the file {name!r}, which was added, is left out: {error}")

    def _upload_changes(self, prefix: str) -> None:
        with suppress(OSError):  # packed next time
            archive_validations(self._folder.translations)
        for name in self._uploaded.removed():
            del self.parts[name]
            self._indexed.discard(name)
        changed = self._uploaded.changed()
        share = 0.0 if self.parts.keys() >= set(changed) else usage(self.parts)
        for name in changed:
            is_new = name not in self.parts
            if is_new and not self._may_add(name, share):
                continue
            try:
                self._uploaded.upload(name, partial(put_part, self._store, f"{prefix}/{name}"))
            except FileNotFoundError:  # removed meanwhile
                continue
            except ObjectStoreError:
                raise
            except OSError as error:  # such as a FIFO, or a file of another user
                if name == self._folder.metrics.name:
                    raise  # no checkpoint is published without the record of its steps
                self._refuse(name, f"the file {name!r} is not in {self._url}: {error}")
                continue
            self._indexed.discard(name)
            self._last_changes[name] = time.monotonic()
            share += usage({name: self.parts[name]}) if is_new else 0.0

    def _may_add(self, name: str, share: float) -> bool:
        """Return whether a new file can be stored; announce once if not.

        Args:
            share: the share of the limits that the files in the object store take.
        """
        if problem := file_table.name_problem(name):
            self._refuse(name, f"the file {name!r} is not in {self._url}, since its name {problem}")
            return False
        self.warn_at_limit(share, "files")
        if share > 1.0 - 0.5 / file_table.MAX_FILES:
            error = file_table.too_many_files(len(self.parts))
            self._refuse("limit", f"{self._url} receives no further files: {error}")
            return False
        return True

    def warn_at_limit(self, share: float, what: str) -> None:
        """Announce once that little is left of a limit.

        Args:
            share: the share of the limit that is used.
            what: the objects that are limited.
        """
        if share >= file_table.WARNING_SHARE:
            self._refuse(
                f"most {what}",
                f"{self._url} has {share:.0%} of the {what} that a run in an object store can "
                f"have. Remove some in {self._folder.path}",
            )

    def _refuse(self, about: str, message: str) -> None:
        """Announce once that something is not stored, or will not be."""
        if about not in self._refused:
            self._refused.add(about)
            self._announce(message)

    def _new_index(self, current: FileTable, prefix: str) -> list[IndexPart]:
        """Return the parts of the index, after moving files to it if the head names too many."""
        tables = self._puller.tables
        direct = [name for name in self.parts if name not in self._indexed]
        # The index may list outdated parts of files that the head names, but no file that is gone.
        is_stale = bool(tables.indexed(current).keys() - self.parts.keys())
        if len(direct) <= file_table.MAX_ENTRIES and not is_stale:
            return current.index
        if len(direct) > file_table.MAX_ENTRIES:
            direct.sort(key=lambda name: self._last_changes.get(name, 0.0))
            self._indexed |= set(direct[:-ENTRIES_LEFT])
        files = {name: self.parts[name] for name in sorted(self._indexed)}
        put = partial(put_part, self._store, f"{prefix}/index")
        index = file_table.write_index(files, put) if files else []
        tables.remember(index, files)
        return index


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
