"""`transloom prepare`: corpora → tokenizer, shards, held-out text, cleaning report, manifest.

    read and clean → partition by key on disk → train the tokenizer on a part
    → sort each group of partitions, encode, write its shards → manifest → sync → rename

The same recipe and text produce the same bytes: nothing depends on time, the dataset's location,
numpy's random generators or the number of processes. Only a few chunks and groups are in memory at
a time, never a whole corpus.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.corpora.cleaning import HeldOutTexts
from data_pipeline.corpora.corpus import CorpusReader, WholeText
from data_pipeline.dataset.lengths import add_lengths
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import CorpusInfo, DocumentLengths, FieldInfo
from data_pipeline.dataset.preparation_settings import preparation_settings
from data_pipeline.dataset.shard_columns import ShardColumns
from data_pipeline.errors import CorpusError, DatasetError
from data_pipeline.preparation.dataset_writer import (
    check_heldout_lengths,
    count_matches,
    number_shards,
    read_heldout,
    with_context,
    write_cleaning_report,
    write_heldout,
    write_tokenizers,
)
from data_pipeline.preparation.existing_dataset import BYTES_OF_ONE_PROCESS, reuse_if_intact
from data_pipeline.preparation.group_writer import (
    SHARDS_PER_GROUP,
    GroupJob,
    WrittenGroup,
    write_group,
)
from data_pipeline.preparation.ingest import IngestedCorpus, ingest
from data_pipeline.preparation.progress import PrepareProgress, Report
from data_pipeline.preparation.publish import (
    check_replaceable,
    clear_leftovers,
    publish,
    work_folder,
)
from data_pipeline.preparation.tokenizer_training import given_tokenizers, train_tokenizers
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.process_pool import ProcessPool, enough_processes, process_pool


def prepare(
    settings: DataSettings,
    report: Report,
    *,
    overwrite: bool = False,
    processes: int | None = None,
) -> Manifest:
    """Prepare the dataset that `settings.data` describes and return its manifest.

    An existing dataset is kept if it is intact and was prepared from the same settings and text. A
    damaged dataset is prepared again. A dataset prepared from other settings or text is refused. A
    dataset to be replaced stays in place until the new one is complete.

    Args:
        overwrite: whether to replace an existing dataset even if it would be kept or refused.
        processes: number of processes. None means one per core, or a single one if there is little
            text.

    Raises:
        CorpusError: the text cannot be read or none is left.
        TokenizerError: a tokenizer cannot be trained, read or used.
        DatasetError: the existing dataset is refused, or the new one cannot be written.
    """
    data = settings.data
    if "://" in data.dataset:
        raise DatasetError(
            f"data.dataset is {data.dataset}, but a dataset can only be prepared in a local "
            "folder. Prepare it with data.dataset=FOLDER, copy the folder to the URL, then train "
            "with the URL."
        )
    dataset = Path(data.dataset).expanduser().resolve()
    clear_leftovers(dataset)
    standing = check_replaceable(dataset)
    if standing and not overwrite:
        existing = reuse_if_intact(dataset, settings, processes, report)
        if existing is not None:
            return existing

    given = given_tokenizers(settings)  # check them before reading, which may take hours
    try:
        with work_folder(dataset) as work:
            readers = _open_readers(data, report)
            text_bytes = sum(reader.total_bytes for reader in readers)
            processes = processes or enough_processes(text_bytes, BYTES_OF_ONE_PROCESS)
            with process_pool(processes, "prepared data", DatasetError) as pool:
                _Preparation(settings, given, readers, work, pool, report).run()
            publish(work / "new", dataset, work / "old", standing)
    except OSError as error:
        raise DatasetError(
            f"The dataset {dataset} cannot be prepared ({error}). Make sure that the folder "
            f"{dataset.parent} is writable and has disk space for three times the text, or name "
            "another folder with data.dataset."
        ) from error
    return Manifest.load(open_store(dataset))


@dataclass(frozen=True)
class _Preparation:
    """Preparation of one dataset in a work folder."""

    settings: DataSettings
    given: dict[str, Tokenizer] | None
    readers: list[CorpusReader]
    work: Path
    pool: ProcessPool
    report: Report

    @cached_property
    def fields(self) -> tuple[FieldInfo, ...]:
        return DATA_TASKS[self.settings.task].fields(self.settings.data)

    @property
    def new(self) -> Path:
        return self.work / "new"

    def run(self) -> None:
        """Write the whole dataset into the work folder's subfolder `new`."""
        settings, new = self.settings, self.new
        for folder in (new, new / "shards", new / "heldout"):
            folder.mkdir()
        plain_texts = read_heldout(settings.data)
        texts = with_context(plain_texts, settings.data)
        heldout = write_heldout(new, settings.data, self.fields, texts)
        if self.given:  # check lengths before reading, which may take hours
            self._check_lengths(texts, self.given)
        corpora = self._ingest(plain_texts)
        heldout = count_matches(heldout, settings.data, plain_texts, corpora)
        self.report(PrepareProgress("train tokenizer", 0, 1))
        tokenizers = self.given or train_tokenizers(settings, corpora, self.pool)
        self.report(PrepareProgress("train tokenizer", 1, 1))
        if not self.given:
            self._check_lengths(texts, tokenizers)
        del texts, plain_texts
        groups = self._write_groups(corpora, tokenizers)
        shards = number_shards(
            new, [(c.name, [s for g in groups[c.name] for s in g.shards]) for c in corpora]
        )
        manifest = Manifest(
            fields=self.fields,
            tokenizers=write_tokenizers(new, tokenizers),
            special_ids=tokenizers[self.fields[0].name].special_ids,
            corpora=tuple(self._describe(corpus, groups[corpus.name]) for corpus in corpora),
            lengths=self._lengths([g for corpus in corpora for g in groups[corpus.name]]),
            cleaning=write_cleaning_report(new, corpora),
            heldout=heldout,
            preparation=preparation_settings(settings),
            shards=ShardColumns.of(shards),
        )
        manifest.save_new(new)

    def _check_lengths(self, texts: dict[str, WholeText], tokenizers: dict[str, Tokenizer]) -> None:
        settings = self.settings
        check_heldout_lengths(settings.task, settings.data, self.fields, texts, tokenizers)

    def _ingest(self, heldout_texts: dict[str, WholeText]) -> list[IngestedCorpus]:
        readers, cleaning = self.readers, self.settings.data.cleaning
        held_out_examples = chain.from_iterable(text.texts for text in heldout_texts.values())
        heldout = HeldOutTexts(held_out_examples, cleaning.normalise)
        total = sum(reader.total_bytes for reader in readers)

        def report() -> None:
            self.report(PrepareProgress("read", sum(r.bytes_read for r in readers), total))

        corpora = []
        for index, reader in enumerate(readers):
            folder = self.work / "partitions" / str(index)
            corpus = ingest(self.settings, index, heldout, reader, folder, self.pool, report)
            _require_some(corpus, corpus.partitions.examples, self.settings.data)
            corpora.append(corpus)
        self.report(PrepareProgress("read", total, total))
        return corpora

    def _write_groups(
        self, corpora: list[IngestedCorpus], tokenizers: dict[str, Tokenizer]
    ) -> dict[str, list[WrittenGroup]]:
        """Write the groups of each corpus in order, and report the examples that they drop."""
        data = self.settings.data
        per_group = SHARDS_PER_GROUP * data.pairs_per_block * data.blocks_per_shard
        jobs = [
            GroupJob(
                settings=self.settings,
                folder=self.new / "shards",
                corpus=index,
                group=group,
                partitions=partitions,
                tokenizers={field: tokenizer.model for field, tokenizer in tokenizers.items()},
                tokenizer_kind=tokenizers[self.fields[0].name].kind,
            )
            for index, corpus in enumerate(corpora)
            for group, partitions in enumerate(corpus.partitions.groups(per_group))
        ]
        groups: dict[str, list[WrittenGroup]] = {corpus.name: [] for corpus in corpora}
        total = sum(corpus.partitions.examples for corpus in corpora)
        done = 0
        for job, written in zip(jobs, self.pool.map(write_group, jobs), strict=True):
            groups[job.corpus_name].append(written)
            corpora[job.corpus].dropped.merge(written.dropped)
            done += written.pairs + sum(written.dropped.counts().values())
            self.report(PrepareProgress("write", done, total))
        for corpus in corpora:
            _require_some(corpus, sum(g.pairs for g in groups[corpus.name]), data)
        return groups

    def _describe(self, corpus: IngestedCorpus, groups: list[WrittenGroup]) -> CorpusInfo:
        return CorpusInfo(
            name=corpus.name,
            tag=corpus.config.tags.get(self.fields[0].name),
            sha256s=corpus.sha256s,
            read=corpus.read,
            kept=sum(group.pairs for group in groups),
            dropped=corpus.dropped.counts(),
        )

    def _lengths(self, groups: list[WrittenGroup]) -> dict[str, tuple[int, ...] | DocumentLengths]:
        return {
            field.name: add_lengths(
                field, [group.lengths[field.name] for group in groups]
            ).to_manifest()
            for field in self.fields
        }


def _open_readers(data: DataConfig, report: Report) -> list[CorpusReader]:
    """Return a reader for each training corpus, after downloading its remote files."""
    readers: list[CorpusReader] = []
    for corpus in data.train:
        report(PrepareProgress("open", len(readers), len(data.train)))
        readers.append(CorpusReader(corpus, mirror=data.mirror, cache=cache_folder(data.cache)))
    report(PrepareProgress("open", len(readers), len(data.train)))
    return readers


def _require_some(corpus: IngestedCorpus, left: int, data: DataConfig) -> None:
    if not left:
        counts = corpus.dropped.counts()
        dropped = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in counts.items())
        limits = [
            f"data.{name}={value}"
            for name, value in data
            if name.startswith("max_") and name != "max_heldout_length"
        ]
        raise CorpusError(
            f"No {corpus.config.noun} of the corpus {corpus.name} is left: read {corpus.read:,}, "
            f"dropped {dropped}. Relax {' or '.join(['data.cleaning', *limits])}, or give other "
            "text."
        )
