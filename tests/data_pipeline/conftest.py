"""Small corpora and prepared datasets."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data_settings import settings_of
from support.datasets import blocks_of

from data_pipeline.config.data import BatchingConfig, DataSettings, TokenizerConfig
from data_pipeline.config.pair import PairCorpusConfig, PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import PrepareProgress
from data_pipeline.storage.store import open_store

SYLLABLES = ["ba", "de", "fi", "go", "ku", "la", "mé", "ni", "po", "ru", "sa", "tö"]


def silent(progress: PrepareProgress) -> None:
    """Ignore the progress."""


def make_sentences(count: int, seed: int) -> list[str]:
    """Return sentences of 1 to 15 words, each of 1 to 3 syllables."""
    rng = random.Random(seed)
    return [
        " ".join(
            "".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(rng.randint(1, 15))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def sentences() -> Callable[[int, int], list[str]]:
    return make_sentences


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with train (500 pairs), validation (40) and test (30) as .src and .tgt."""
    folder = tmp_path_factory.mktemp("corpora")
    for number, (name, count) in enumerate((("train", 500), ("validation", 40), ("test", 30))):
        for side, suffix in enumerate((".src", ".tgt")):
            text = "".join(line + "\n" for line in make_sentences(count, 2 * number + side))
            (folder / (name + suffix)).write_text(text)
    return folder


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> Callable[[str], PairCorpusConfig]:
    def make(name: str) -> PairCorpusConfig:
        return PairCorpusConfig(
            source=str(corpus_folder / f"{name}.src"), target=str(corpus_folder / f"{name}.tgt")
        )

    return make


@pytest.fixture(scope="session")
def data_config(corpus: Callable[[str], PairCorpusConfig]) -> Callable[..., PairDataConfig]:
    """Return a function that makes the config of the small corpora, with small blocks."""

    def make(dataset: Path, **settings: object) -> PairDataConfig:
        defaults: dict[str, object] = {
            "source_language": "xx",
            "target_language": "yy",
            "dataset": str(dataset),
            "train": (corpus("train"),),
            "validation": corpus("validation"),
            "tests": {"small": corpus("test")},
            "pairs_per_block": 16,
            "blocks_per_shard": 4,
        }
        return PairDataConfig.model_validate(defaults | settings)

    return make


@pytest.fixture(scope="session")
def tokenizer_config() -> TokenizerConfig:
    return TokenizerConfig(type="bpe", vocabulary_size=120)


@pytest.fixture(scope="session")
def dataset(
    tmp_path_factory: pytest.TempPathFactory,
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
) -> Path:
    """Return a prepared dataset of 500 pairs in 8 shards, which tests must not change."""
    path = tmp_path_factory.mktemp("datasets") / "small"
    prepare(settings_of(data_config(path), tokenizer_config), silent)
    return path


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """Return a copy of the dataset, which a test may change."""
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


@pytest.fixture(scope="session")
def manifest(dataset: Path) -> Manifest:
    return Manifest.load(open_store(dataset))


@pytest.fixture(scope="session")
def data_settings(
    data_config: Callable[..., PairDataConfig], tokenizer_config: TokenizerConfig
) -> Callable[..., DataSettings]:
    """Return a function that makes a run's data settings, with options for seed and batching."""

    def make(
        dataset: Path,
        *,
        data: PairDataConfig | None = None,
        tokenizer: TokenizerConfig | None = None,
        seed: int = 5,
        **batching: int,
    ) -> DataSettings:
        defaults = {
            "max_tokens_per_micro_batch": 300,
            "micro_batches_per_step": 4,
            "window_shards": 3,
        }
        return DataSettings(
            data or data_config(dataset),
            tokenizer or tokenizer_config,
            BatchingConfig.model_validate(defaults | batching),
            seed,
        )

    return make


@pytest.fixture(scope="session")
def read_pairs() -> Callable[[Path], list[tuple[str, str]]]:
    """Return a function that reads all pairs of a dataset from its shards, in the order of ids."""

    def read(dataset: Path) -> list[tuple[str, str]]:
        return [
            pair
            for block in blocks_of(dataset)
            for pair in zip(block.sentences("src"), block.sentences("tgt"), strict=True)
        ]

    return read
