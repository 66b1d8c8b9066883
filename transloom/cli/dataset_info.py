"""Work of `transloom data info`: facts about a dataset, as JSON values and as tables."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import DocumentLengths, FieldInfo
from data_pipeline.errors import DatasetFileError
from data_pipeline.storage.store import DatasetStore, open_store
from foundation.file_model import Count, FileModel, JsonLimits, error_summary, parse_object
from foundation.terminal import shown
from foundation.untrusted_text import visible, visible_line
from foundation.wording import counted, join_items
from transloom.observe.terminal.histogram import histogram, histogram_of_powers, quantile

CHARACTERS_SHOWN = 120  # maximum characters of a dropped sentence in the table; --json prints more

LABELS_SHOWN = 20
# Large, because dropped documents can be long.
REPORT_LIMITS = JsonLimits(bytes=256_000_000, values=1_000_000)

Facts = dict[str, Any]


class _Dropped(FileModel):
    """Examples that were dropped for one reason.

    Attributes:
        count: the number of all examples that were dropped for this reason.
        examples: some of these examples, each as a list: its number, followed by its texts.
    """

    count: Count
    examples: list[dict[str, int | str]]

    def check(self, reason: str, counts: dict[str, int]) -> None:
        """Check that the examples have the same columns, so that one table can show them.

        Raises:
            ValueError: the examples have different columns, or the manifest does not list the
                reason.
        """
        if reason not in counts:
            raise ValueError(f"the reason {reason[:80]!r}, which is not in the manifest")
        for example in self.examples:
            kinds = [type(value) for value in example.values()]
            if example.keys() != self.examples[0].keys() or kinds[:1] != [int] or int in kinds[1:]:
                raise ValueError(f"{reason}: an example that is not a number with its texts")


_REPORT = TypeAdapter(dict[str, dict[str, _Dropped]])


def dataset_facts(dataset: str, *, examples: bool) -> Facts:
    """Return the facts in a dataset's manifest, and examples of dropped text if requested.

    Args:
        dataset: a folder or URL.

    Raises:
        DatasetError: there is no dataset, or its manifest or cleaning report is damaged.
    """
    # No retries: a user is waiting for the answer.
    store = open_store(dataset, retry_delays_seconds=())
    manifest = Manifest.load(store)
    in_training = zip(manifest.shards, manifest.shards_in_training(), strict=True)
    left_out = [shard for shard, kept in in_training if not kept]
    pairs_left_out = sum(shard.pairs for shard in left_out)
    return {
        "dataset": store.location,
        "identity": manifest.identity,
        "origin": manifest.origin,
        "fields": [_field_facts(manifest, field) for field in manifest.fields],
        "noun": manifest.noun,
        "pairs": manifest.pairs,
        "pairs_quarantined": pairs_left_out,
        "pairs_to_train_on": manifest.pairs - pairs_left_out,
        "shards": len(manifest.shards),
        "bytes": int(manifest.shards.shard_bytes.sum()),
        "corpora": _corpora_facts(store, manifest, examples),
        "heldout": [
            {
                "name": name,
                "pairs": info.pairs,
                "tag": info.tag,
                "in_training": info.in_training,
                "in_training_exactly": info.in_training_exactly,
            }
            for name, info in manifest.heldout.items()
        ],
        "quarantined": [
            {
                "shard": tombstone.shard,
                "reason": tombstone.reason,
                "parent": tombstone.parent,
                "pairs": next(s.pairs for s in left_out if s.name == tombstone.shard),
            }
            for tombstone in manifest.tombstones
        ],
        "preparation": manifest.preparation,
    }


def _field_facts(manifest: Manifest, field: FieldInfo) -> Facts:
    """Return the facts about one field; lengths are in tokens, including EOS."""
    tokenizer = manifest.tokenizers[field.name]
    return {
        **field.model_dump(),
        "tokens": int(manifest.shards.tokens[field.name].sum()),
        "tokenizer": tokenizer.file,
        "vocabulary_size": tokenizer.vocabulary_size,
        **_length_facts(manifest.lengths[field.name]),
    }


def _length_facts(counts: tuple[int, ...] | DocumentLengths) -> Facts:
    if isinstance(counts, DocumentLengths):
        return {"longest": counts.longest, "lengths_by_powers_of_two": list(counts.counts)}
    return {
        "median_length": quantile(counts, 0.5),
        "length_99th_percentile": quantile(counts, 0.99),
        "longest": len(counts) - 1,
        "lengths": list(counts),
    }


def _corpora_facts(store: DatasetStore, manifest: Manifest, examples: bool) -> list[Facts]:
    report = _cleaning_report(store, manifest) if examples else {}
    return [
        {
            **corpus.model_dump(mode="json"),
            "shards": int((manifest.shards.corpus == index).sum()),
            "examples": {
                reason: dropped.examples for reason, dropped in report.get(corpus.name, {}).items()
            },
        }
        for index, corpus in enumerate(manifest.corpora)
    ]


def _cleaning_report(store: DatasetStore, manifest: Manifest) -> dict[str, dict[str, _Dropped]]:
    """Return examples of the text dropped from each corpus, by the reason for dropping it.

    Raises:
        DatasetFileError: the file differs from the manifest, or is not a valid report.
    """
    file = manifest.cleaning.file
    try:
        report = _REPORT.validate_python(
            parse_object(store.read(file, manifest.cleaning.sha256), REPORT_LIMITS)
        )
        for corpus in manifest.corpora:
            for reason, dropped in report.get(corpus.name, {}).items():
                dropped.check(reason, corpus.dropped)
    except ValueError as error:
        raise DatasetFileError(
            file, "a report on what was dropped", error_summary(error)
        ) from error
    return report


def dataset_report(facts: Facts) -> Group:
    """Return the facts as tables, with examples of dropped text if the facts have any."""
    parts: list[RenderableType] = [_overview(facts), "", _corpora_table(facts["corpora"])]
    for field in facts["fields"]:
        if field.get("labels"):
            continue  # a text or a token has exactly one label, so there are no lengths to show
        parts += ["", _lengths_title(field)]
        if "lengths" in field:
            parts.append(histogram(field["lengths"]))
        else:
            parts.append(histogram_of_powers(field["lengths_by_powers_of_two"]))
    for title, examples in _examples_tables(facts["corpora"], facts["noun"]):
        parts += ["", title, examples]
    return Group(*parts)


def _lengths_title(field: Facts) -> RenderableType:
    quantiles = (
        f"median {field['median_length']}, 99th percentile {field['length_99th_percentile']}, "
        if "median_length" in field
        else ""
    )
    return shown(
        (field["name"], "bold"),
        f" ({field['language']}), tokens with EOS: {quantiles}longest {field['longest']:,}",
    )


def _overview(facts: Facts) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    copied = max(cell_len(visible(facts["dataset"])), len(facts["identity"]))
    table.add_column(overflow="fold", min_width=copied)
    table.add_row("dataset", facts["dataset"])
    table.add_row("identity", facts["identity"])
    if facts["quarantined"]:
        table.add_row("origin", facts["origin"])
    for field in facts["fields"]:
        table.add_row(field["role"], _field_text(field))
    noun = facts["noun"]
    table.add_row(f"{noun}s", f"{facts['pairs']:,}")
    table.add_row("shards", f"{facts['shards']:,} with {facts['bytes'] / 1e6:,.1f} MB")
    for heldout in facts["heldout"]:
        tag = f", tagged {heldout['tag']}" if heldout["tag"] else ""
        table.add_row("held out", f"{heldout['name']}: {counted(heldout['pairs'], noun)}{tag}")
        if matches := heldout["in_training"]:
            exactly = f"{heldout['in_training_exactly']:,} exactly"
            text = f"  {matches:,} of them are in the training data, too, {exactly}"
            table.add_row("", shown((text, "yellow")))
    for entry in facts["quarantined"]:
        lost = f"{entry['shard']}: {counted(entry['pairs'], noun)} fewer; {entry['reason']}"
        table.add_row("quarantined", shown((lost, "yellow")))
    if facts["quarantined"]:
        left = f"{facts['pairs_to_train_on']:,} {noun}s, without those of quarantined shards"
        table.add_row("to train on", left)
    return table


def _field_text(field: Facts) -> str:
    if labels := field.get("labels"):
        named = f": {join_items(labels[:LABELS_SHOWN])}" + ", …" * (len(labels) > LABELS_SHOWN)
        return f"{field['name']}, of {counted(len(labels), 'label')}{named}"
    return (
        f"{field['name']}, {field['language']}: {counted(field['tokens'], 'token')}, vocabulary of "
        f"{counted(field['vocabulary_size'], 'piece')} in {field['tokenizer']}"
    )


def _corpora_table(corpora: list[Facts]) -> Table:
    table = Table("corpus", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("shards", "read", "kept", "dropped"):
        table.add_column(heading, justify="right", no_wrap=True)
    for corpus in corpora:
        name = f"{corpus['name']}, tagged {corpus['tag']}" if corpus["tag"] else corpus["name"]
        numbers = (
            corpus["shards"],
            corpus["read"],
            corpus["kept"],
            sum(corpus["dropped"].values()),
        )
        table.add_row(name, *(f"{number:,}" for number in numbers))
        for reason, count in corpus["dropped"].items():
            table.add_row(f"  {in_words(reason)}", "", "", "", f"{count:,}", style="dim")
    return table


def _examples_tables(corpora: list[Facts], noun: str) -> Iterator[tuple[RenderableType, Table]]:
    for corpus in corpora:
        for reason, examples in corpus["examples"].items():
            if not examples:
                continue
            count = corpus["dropped"][reason]
            some = f", the first {len(examples)} of them" if len(examples) < count else ""
            what = (
                f"dropped from {corpus['name']}, {in_words(reason)}: {counted(count, noun)}{some}"
            )
            table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
            number, *texts = examples[0]
            table.add_column(number, justify="right", no_wrap=True)
            for name in texts:
                table.add_column(name, overflow="fold")
            for example in examples:
                table.add_row(f"{example[number]:,}", *(_quoted(example[name]) for name in texts))
            yield shown((what, "bold")), table


def _quoted(sentence: str) -> str:
    """Return the beginning of a sentence in quotation marks, so that outer spaces are visible."""
    beginning = sentence[:CHARACTERS_SHOWN]
    return f"'{visible_line(beginning)}'" + ("…" if len(sentence) > len(beginning) else "")


def in_words(reason: str) -> str:
    """Return the name of a reason for dropping examples, with spaces instead of underscores."""
    return reason.replace("_", " ")
