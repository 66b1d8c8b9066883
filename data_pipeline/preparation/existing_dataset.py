"""Decision of `transloom prepare` to keep, replace or refuse an existing dataset.

The decision depends on the settings, the text and the state of the dataset:

    prepared from other settings or text     ──▶ refused with an error
    from the same settings and text, intact  ──▶ kept
    from the same settings and text, damaged ──▶ prepared again, or refused if files would be lost
"""

from pathlib import Path

from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.verification import FileProblem, problems_of, unknown_files
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.preparation.progress import PrepareProgress, Report
from data_pipeline.storage.locations import cache_folder, open_location
from data_pipeline.storage.store import open_store
from foundation.process_pool import enough_processes
from foundation.untrusted_text import logger_of

logger = logger_of(__name__)

# Bytes of text that one process can handle in the time that starting more processes takes.
BYTES_OF_ONE_PROCESS = 4_000_000


def reuse_if_intact(
    dataset: Path, settings: DataSettings, processes: int | None, report: Report
) -> Manifest | None:
    """Return the manifest of a dataset that can be kept, or None if it must be prepared again.

    Raises:
        DatasetError: the dataset was prepared from other settings or text, or it is damaged and has
            contents that preparing again would not restore.
    """

    def progress(done: int, total: int) -> None:
        report(PrepareProgress("compare", done, total))

    try:
        existing = Manifest.load(open_store(dataset))
    except DatasetFileError as error:
        raise DatasetError(
            f"The dataset {dataset} cannot be compared with the recipe, because its {error.file} "
            f"is damaged: expected {error.expected}, found {error.found}. Restore the file from a "
            "copy, or run `transloom prepare --overwrite`: the same corpora produce the same bytes."
        ) from error
    _refuse(dataset, existing.differences(settings))
    _refuse(dataset, _changed_text(settings.data, existing))
    shard_bytes = int(existing.shards.shard_bytes.sum())
    processes = processes or enough_processes(shard_bytes, BYTES_OF_ONE_PROCESS)
    rules = rules_by_corpus(existing)
    problems = problems_of(str(dataset), existing, rules, processes, progress)
    if problems:
        _refuse_to_repair(dataset, existing, problems)
        return None
    report(PrepareProgress("unchanged", existing.pairs, existing.pairs))
    return existing


def _refuse(dataset: Path, differences: list[str]) -> None:
    if differences:
        raise DatasetError(
            f"The dataset {dataset} was prepared from other settings or text: "
            f"{'; '.join(differences)}. Name another folder with data.dataset, or replace this "
            "dataset with --overwrite; runs that were trained on it can then no longer be resumed."
        )


def _changed_text(data: DataConfig, existing: Manifest) -> list[str]:
    """Describe the corpora whose text has changed since the existing dataset was prepared."""
    corpora = [
        (info.name, info.sha256s, corpus)
        for info, corpus in zip(existing.corpora, data.train, strict=True)
    ]
    corpora += [
        (use, existing.heldout[use].sha256s, corpus) for use, corpus in data.heldout.items()
    ]
    return [
        f"the text of {name} has changed"
        for name, before, corpus in corpora
        # Hashes in the recipe were already compared, together with its other settings.
        if None in corpus.sha256s and _hashes(data, corpus) != before
    ]


def _hashes(data: DataConfig, corpus: CorpusConfig) -> tuple[str, ...]:
    """Return the sha256 of each file's decompressed content."""
    hashes = []
    cache = cache_folder(data.cache)
    for location, sha256 in zip(corpus.locations, corpus.sha256s, strict=True):
        with open_location(location, mirror=data.mirror, cache=cache, sha256=sha256) as stream:
            stream.verify(sha256)
            hashes.append(stream.sha256)
    return tuple(hashes)


def _refuse_to_repair(dataset: Path, manifest: Manifest, problems: list[FileProblem]) -> None:
    """Log the problems, and check that preparing the dataset again loses nothing.

    Raises:
        DatasetError: the dataset has contents that preparing again would not restore.
    """
    for problem in problems:
        logger.warning(
            "%s of %s is damaged: expected %s, found %s.",
            problem.file,
            dataset,
            problem.expected,
            problem.found,
        )
    strange = unknown_files(dataset, manifest)
    if manifest.tombstones or strange:
        also = f"unknown files: {', '.join(strange[:5])}" if strange else ""
        quarantined = f"the quarantined shards {', '.join(sorted(manifest.left_out))}"
        raise DatasetError(
            f"The dataset {dataset} is damaged ({problems[0].file}: expected "
            f"{problems[0].expected}, found {problems[0].found}) and has "
            f"{quarantined if manifest.tombstones else also}, which would be lost if the dataset "
            "were prepared again. Restore the damaged files from a copy, move the unknown files "
            "away, or replace the dataset with --overwrite."
        )
