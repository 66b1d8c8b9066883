"""Recipe sections about text that all tasks share: `data`, `tokenizer` and `batching`.

Identity fields also determine the bytes of the prepared dataset, unless they are `plan_only`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from data_pipeline.config.corpus import CleaningConfig, CorpusConfig, Sha256
from foundation.extensions import NO_EXTENSIONS, Extensions
from foundation.location import Location
from foundation.registry import Registry
from foundation.section import REQUIRED, Section, execution, identity
from foundation.tasks import DEFAULT_TASK
from foundation.wording import format_value, join_items

# Names of held-out sets become file names in the dataset folder.
HeldOutName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

# Settings that every kind of dataset declares, each with its class of corpora as the type.
TRAIN: Any = identity(REQUIRED, "training corpora; each is shuffled once, globally", min_length=1)
TESTS: Any = identity({}, "held-out sets for `transloom evaluate`, by name")


class CorporaConfig(Section):
    """Corpora of a dataset, and its location."""

    mirror: Location | None = execution(
        None,
        "folder with copies of the corpus files under the same base names, with or without .gz; "
        "the copies are read instead of the paths and URLs, and their hashes are checked",
    )
    dataset: Location = execution(
        REQUIRED,
        "folder of the prepared dataset, or the URL (http, https, s3, gs, az) of a copy to train "
        "from; the hash of the manifest identifies the dataset, not its location",
        min_length=1,
    )
    cache: Location | None = execution(
        None,
        "folder on each node for copies of remote corpora and shards; null: "
        "$TRANSLOOM_CACHE or ~/.cache/transloom",
    )
    cache_gigabytes: float = execution(
        50.0, "maximum disk space for copies of remote shards on each node", gt=0
    )
    train: tuple[CorpusConfig, ...] = TRAIN
    temperature: float = identity(
        1.0,
        "temperature of the mixture if the corpora have no weights: a corpus of n pairs gets a "
        "share proportional to n^(1/temperature) (Arivazhagan et al. 2019); 1 makes shares "
        "proportional to sizes, and higher values make them more equal",
        ge=1,
        plan_only=True,
    )
    cleaning: CleaningConfig = CleaningConfig()
    validation: CorpusConfig = Field(description="held-out text that is scored while training")
    tests: Mapping[HeldOutName, CorpusConfig] = TESTS


class ShardsConfig(Section):
    """Size of a dataset's shards."""

    pairs_per_block: int = identity(
        2048, "pairs in one tar sample of a shard; larger samples are faster to read", gt=0
    )
    blocks_per_shard: int = identity(
        2, "tar samples in one shard; the last shard may have fewer", gt=0
    )


class DataConfig(ShardsConfig, CorporaConfig):
    """Corpora of a dataset and the size of its shards: the settings that all tasks share."""

    @model_validator(mode="after")
    def _test_names_are_free(self) -> Self:
        for name in ("train", "validation"):
            if name in self.tests:
                raise ValueError(
                    f"tests has a set named {name!r}, but this name is reserved for data.{name}: "
                    "give the test set another name"
                )
        return self

    @model_validator(mode="after")
    def _weights_are_given_to_all_or_none(self) -> Self:
        weights = [corpus.weight for corpus in self.train]
        if None in weights and any(weights):
            raise ValueError(
                f"the weights of the training corpora are {join_items(weights)}: give every corpus "
                "a weight, or give none to mix corpora by size and data.temperature"
            )
        if any(weights) and self.temperature != 1:
            raise ValueError(
                f"data.temperature is {self.temperature} and the corpora have the weights "
                f"{join_items(weights)}: weights alone determine the mixture, so remove either "
                "the weights or data.temperature"
            )
        return self

    @model_validator(mode="after")
    def _names_of_corpora_differ(self) -> Self:
        if len(set(self.corpus_names)) < len(self.train):
            names = ", ".join(self.corpus_names)
            raise ValueError(
                f"the training corpora are named {names}: give each corpus a different name"
            )
        return self

    @model_validator(mode="after")
    def _heldout_sets_are_not_mixed(self) -> Self:
        for use, corpus in self.heldout.items():
            given = corpus.model_dump(include={"weight", "min_score", "name"}, exclude_none=True)
            if given:
                raise ValueError(
                    f"the held-out set {use} has {format_value(given)}, but only training corpora "
                    "can have these settings, because a held-out set is always used whole: remove "
                    "these settings"
                )
        return self

    @property
    def heldout(self) -> dict[str, CorpusConfig]:
        """Validation set and test sets by their names in the dataset."""
        return {"validation": self.validation, **self.tests}

    @property
    def corpora(self) -> dict[str, CorpusConfig]:
        """All corpora by their keys, such as train.0, validation and tests.news."""
        training = {f"train.{number}": corpus for number, corpus in enumerate(self.train)}
        tests = {f"tests.{name}": corpus for name, corpus in self.tests.items()}
        return {**training, "validation": self.validation, **tests}

    def problem_of(self, texts: Sequence[str]) -> str | None:
        """Return the problem with an example's texts, or None if they can be used.

        The problem ends with the remedy. Preparation stops at the first example with a problem and
        reports its location in the corpus.
        """
        return None

    @property
    def sentences_before(self) -> int:
        """Number of preceding sentences that are joined to a text of the first field as context."""
        return 0

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """Name of each training corpus: the given one, or one derived from its position."""
        alone = len(self.train) == 1
        return tuple(
            corpus.name or ("train" if alone else f"train-{index}")
            for index, corpus in enumerate(self.train)
        )


class SubwordSamplingConfig(Section):
    """Settings of subword sampling: each pass segments every sentence differently.

    This regularises the model. With a BPE model it is BPE-dropout (Provilkov et al. 2020); with a
    unigram model it is subword regularisation (Kudo 2018). The segmentation of a sentence depends
    only on the seed, the pass and the number of the pair.
    """

    alpha: float = identity(
        0.0,
        "strength of subword sampling; 0 disables it. BPE: the probability of dropping a merge, "
        "such as 0.1; unigram: the exponent that smooths the segmentations' probabilities, such as "
        "0.2",
        ge=0,
        le=1,
        plan_only=True,
    )
    sides: Literal["both", "source", "target"] = identity(
        "both", "sides whose sentences are segmented at random", plan_only=True
    )


TOKENIZERS: Registry[type[Any]] = Registry("tokenizer", "tokenizer.type")
"""Subclasses of `data_pipeline.tokenizers.tokenizer.Tokenizer`, which imports this file."""
SENTENCE_PIECE_TYPES = ("bpe", "unigram", "char")
for _type in SENTENCE_PIECE_TYPES:
    TOKENIZERS.register(_type, "data_pipeline.tokenizers.sentence_piece:SentencePieceTokenizer")
MARIAN = "marian"
TOKENIZERS.register(MARIAN, "data_pipeline.tokenizers.marian:MarianTokenizer")


VERBATIM_HELP = (
    "keep text unchanged: no normalisation, no space added or removed, line ends are characters; "
    "ignored with an existing model"
)


class TokenizerConfig(Section):
    """Settings of a tokenizer, usually a SentencePiece model (Kudo and Richardson 2018).

    The tokenizer is either trained on the training corpora or loaded from an existing model.
    """

    type: str = identity(
        "bpe",
        "bpe: byte-pair encoding (Sennrich et al. 2016); unigram: unigram language model (Kudo "
        "2018); char: a piece for each character; marian: the tokenizers of a Marian model in "
        "Hugging Face's layout, with model set to its folder; or a type that an extension "
        "registers. With an existing SentencePiece model, bpe, unigram and char make no difference",
    )
    vocabulary_size: int = identity(
        REQUIRED,
        "number of pieces of each model, including the four special ones; for char, the maximum",
        gt=4,
    )
    joint: bool = identity(
        True, "use one model for both languages (required to share all embeddings)"
    )
    character_coverage: float = identity(
        1.0,
        "share of the training text's characters that the model covers; "
        "1.0 for alphabets, 0.9995 for Chinese or Japanese; ignored with an existing model",
        ge=0.98,
        le=1.0,
    )
    byte_fallback: bool = identity(
        False,
        "spell characters without a piece in bytes, for which 256 pieces are reserved; "
        "ignored with an existing model",
    )
    verbatim: bool = identity(False, VERBATIM_HELP)
    training_pairs: int = identity(
        500_000,
        "maximum number of pairs, drawn at random from the corpora, to train a model on; ignored "
        "with an existing model",
        gt=0,
    )
    sampling: SubwordSamplingConfig = SubwordSamplingConfig()
    model: Location | None = identity(
        None,
        "path of an existing joint SentencePiece model, or folder of a Marian model; the model is "
        "used unchanged",
    )
    model_sha256: Sha256 | None = identity(
        None,
        "sha256 of the existing model's file; for a Marian model, the value that `transloom init` "
        "writes",
    )

    @property
    def training_bytes(self) -> int | None:
        """Maximum bytes of text to train a model on, or None for all text of the selected pairs."""
        return None

    @model_validator(mode="after")
    def _type_is_known(self) -> Self:
        TOKENIZERS.known(self.type)
        return self

    @model_validator(mode="after")
    def _existing_model_is_pinned_and_joint(self) -> Self:
        if self.type == MARIAN and self.model is None:
            raise ValueError(
                "type is marian and model is not set: tokenizers of that type cannot be trained, "
                "so set model to the folder of a Marian model"
            )
        if (self.model is None) != (self.model_sha256 is None):
            raise ValueError(
                f"model is {self.model} and model_sha256 is {self.model_sha256}: "
                "set both for an existing model, or neither to train one"
            )
        if self.model is not None and not self.joint:
            raise ValueError(
                f"model is {self.model} and joint is false: an existing model serves both "
                "languages, so set joint: true or leave out the model"
            )
        return self


class BatchingConfig(Section):
    """Division of the endless stream of pairs into micro-batches and steps."""

    max_tokens_per_micro_batch: int = identity(
        REQUIRED,
        "maximum tokens of a micro-batch: its number of pairs × the length of its longest sequence "
        "in any field, padding and EOS included",
        gt=0,
    )
    micro_batches_per_step: int = identity(
        REQUIRED, "micro-batches of a step over all ranks; also the largest number of ranks", gt=0
    )
    window_shards: int = identity(
        8,
        "size of a window in shards; pairs are shuffled and sorted by length within a "
        "window: larger windows shuffle better and need more memory",
        gt=0,
    )


class PackedBatchingConfig(BatchingConfig):
    """Packing of documents into rows, and of rows into micro-batches and steps."""

    context_length: int = identity(
        REQUIRED,
        "maximum tokens of a row, and therefore of the context of a prediction; longer documents "
        "are cut when a window is planned",
        gt=0,
    )

    @model_validator(mode="after")
    def _a_row_fits(self) -> Self:
        if self.context_length > self.max_tokens_per_micro_batch:
            raise ValueError(
                f"context_length is {self.context_length} and max_tokens_per_micro_batch is "
                f"{self.max_tokens_per_micro_batch}, but a micro-batch must have space for at "
                "least one row: lower context_length, or raise max_tokens_per_micro_batch"
            )
        return self


B = TypeVar("B", bound=BatchingConfig)


@dataclass(frozen=True)
class DataSettings:
    """Part of a recipe that determines the samples of a run."""

    data: DataConfig
    tokenizer: TokenizerConfig
    batching: BatchingConfig
    seed: int
    task: str = DEFAULT_TASK
    extensions: Extensions = NO_EXTENSIONS

    def batching_as(self, kind: type[B]) -> B:
        """Return the section `batching`, whose class follows from the task."""
        assert isinstance(self.batching, kind)
        return self.batching

    def __reduce__(self) -> tuple[Any, ...]:
        # Put the extensions first, because objects of their classes can be unpickled only after the
        # extensions are loaded.
        settings = partial(DataSettings, extensions=self.extensions)
        return settings, (self.data, self.tokenizer, self.batching, self.seed, self.task)
