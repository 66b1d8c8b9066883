"""Held-out sets (validation and tests), read from the dataset folder.

Their batches depend only on lengths and settings, not on the seed, the number of ranks or the order
of reading. Every run therefore scores the same batches.
"""

from collections.abc import Mapping
from typing import NamedTuple

from data_pipeline.batching.task import DATA_TASKS, HeldOut
from data_pipeline.config.data import DataConfig, DataSettings
from data_pipeline.dataset.manifest_header import ManifestHeader
from data_pipeline.dataset.texts import unpack_heldout
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import Tokenizer

TEXTS_COUNTED_AT_ONCE = 1000


class LongText(NamedTuple):
    """Held-out text that has more tokens than its field allows."""

    field: str
    number: int  # number of the text in its set, from 1
    tokens: int
    limit: int

    @property
    def problem(self) -> str:
        """Description of the problem, with the remedy."""
        return (
            f"the text has {self.tokens:,} tokens, EOS included, but a held-out sentence may have "
            f"at most {self.limit:,}, because memory grows with the square of the length. Split or "
            "remove the line on both sides and prepare again, or raise the limit with "
            f"data.max_heldout_length={self.tokens}."
        )


def load_heldout(store: DatasetStore, manifest: ManifestHeader, name: str) -> HeldOut:
    """Read a held-out set.

    Args:
        name: "validation" or the name of a test set.

    Raises:
        DatasetError: the set is missing or damaged.
    """
    if name not in manifest.heldout:
        raise DatasetError(
            f"The dataset {store.location} has no held-out set {name!r}; it has "
            f"{', '.join(manifest.heldout)}. Name one of these, or add {name} to data.tests and "
            "prepare again."
        )
    info = manifest.heldout[name]
    texts = {}
    for field in manifest.fields:
        file = info.files[field.name]
        data = store.read(file.file, file.sha256)
        texts[field.name] = unpack_heldout(file.file, data, field, info.pairs)
    return HeldOut(texts, {} if info.tag is None else {manifest.fields[0].name: info.tag})


def first_too_long(
    task: str, data: DataConfig, heldout: HeldOut, tokenizers: Mapping[str, Tokenizer]
) -> LongText | None:
    """Return the first text that exceeds the task's limit for its field, or None if all fit.

    Fields are searched one after the other.
    """
    for field, limit in DATA_TASKS[task].heldout_limits(data).items():
        texts, tag = heldout.texts[field], heldout.tags.get(field)
        for start in range(0, len(texts), TEXTS_COUNTED_AT_ONCE):
            some = texts[start : start + TEXTS_COUNTED_AT_ONCE]
            lengths = tokenizers[field].encode_field(some, tag).lengths
            if lengths.max(initial=0) > limit:
                at = int((lengths > limit).argmax())
                return LongText(field, start + at + 1, int(lengths[at]), limit)
    return None


def check_heldout(
    heldout: HeldOut,
    name: str,
    settings: DataSettings,
    tokenizers: Mapping[str, Tokenizer],
    location: str,
) -> None:
    """Check that all texts of a dataset's held-out set are short enough to be scored.

    Args:
        name: name of the held-out set, for the message.
        location: location of the dataset, for the message.

    Raises:
        DatasetError: a text has too many tokens.
    """
    found = first_too_long(settings.task, settings.data, heldout, tokenizers)
    if found is not None:
        raise DatasetError(
            f"The held-out set {name} of the dataset {location}, line {found.number:,} of "
            f"{found.field}: {found.problem}"
        )
