"""`prepare` as a whole: repeatable bytes, counted drops, and no half-written dataset."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.config import BatchingConfig, CorpusConfig, DataConfig, TokenizerConfig
from data_pipeline.errors import CorpusError, DatasetError, TokenizerError
from data_pipeline.manifest import Manifest
from data_pipeline.plan import Cursor
from data_pipeline.prepare import PrepareProgress, prepare
from data_pipeline.shards import read_shard
from data_pipeline.stream import local_rank_steps
from data_pipeline.tokenizer import load_tokenizers
from data_pipeline.window import WindowReader

MakeData = Callable[..., DataConfig]


def silent(progress: PrepareProgress) -> None:
    """Reports nothing."""


def hashes(dataset: Path) -> dict[str, str]:
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dataset.rglob("*")
        if path.is_file()
    }


def test_repetition_gives_the_same_bytes(
    dataset: Path, data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    prepare(data_config(tmp_path / "again"), tokenizer_config, silent)
    assert hashes(tmp_path / "again") == hashes(dataset)


def test_shards_hold_every_pair_shuffled(
    dataset: Path, manifest: Manifest, corpus: Callable[[str], CorpusConfig]
) -> None:
    pairs = [
        pair
        for shard in manifest.shards
        for block in read_shard(dataset, shard)
        for pair in zip(block.sentences("src"), block.sentences("tgt"), strict=True)
    ]
    lines = [
        Path(path).read_text().splitlines()
        for path in (corpus("train").source, corpus("train").target)
    ]
    expected = list(zip(*lines, strict=True))
    assert sorted(pairs) == sorted(expected)
    assert pairs != expected


def test_progress_reaches_its_totals(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    reports: list[PrepareProgress] = []
    data = data_config(tmp_path / "d")
    prepare(data, tokenizer_config, reports.append)
    last = {report.stage: (report.done, report.total) for report in reports}
    assert last == {
        "read": (3, 3),
        "train tokenizer": (1, 1),
        "encode": (1000, 1000),
        "write": (500, 500),
    }


def test_the_same_again_is_kept_and_said(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    data = data_config(tmp_path / "d")
    first = prepare(data, tokenizer_config, silent)
    inode = (tmp_path / "d").stat().st_ino
    reports: list[PrepareProgress] = []
    second = prepare(data, tokenizer_config, reports.append)
    assert second.identity == first.identity
    assert reports[-1] == PrepareProgress("unchanged", 500, 500)
    assert (tmp_path / "d").stat().st_ino == inode

    (tmp_path / "d" / first.shards[0].name).write_bytes(b"damaged")
    repaired = prepare(data, tokenizer_config, silent)
    assert repaired.identity == first.identity
    repaired.verify(tmp_path / "d")


def test_other_settings_are_refused_unless_overwritten(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    first = prepare(data_config(tmp_path / "d"), tokenizer_config, silent)
    other = data_config(tmp_path / "d", max_target_length=20)
    with pytest.raises(DatasetError, match=r"max_target_length: 256 in .* 20 in .*--overwrite"):
        prepare(other, tokenizer_config, silent)
    assert Manifest.load(tmp_path / "d").identity == first.identity
    assert prepare(other, tokenizer_config, silent, overwrite=True).identity != first.identity


def test_changed_text_is_refused(
    data_config: MakeData, tokenizer_config: TokenizerConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    mirror = Path(shutil.copytree(corpus_folder, tmp_path / "mirror"))
    data = data_config(tmp_path / "d", mirror=str(mirror))
    prepare(data, tokenizer_config, silent)
    with (mirror / "train.src").open("a") as source, (mirror / "train.tgt").open("a") as target:
        source.write("ba\n")
        target.write("de\n")
    with pytest.raises(DatasetError, match="the text of train has changed"):
        prepare(data, tokenizer_config, silent)


def test_long_and_empty_pairs_are_dropped_and_counted(
    data_config: MakeData, tokenizer_config: TokenizerConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    lines = (corpus_folder / "train.src").read_text().splitlines()
    sources, targets = lines[:100], lines[100:200]
    sources[3] = targets[50] = "  "
    targets[51] = ""
    for name, side in (("a.src", sources), ("a.tgt", targets)):
        (tmp_path / name).write_text("".join(line + "\n" for line in side))
    corpus = {"source": str(tmp_path / "a.src"), "target": str(tmp_path / "a.tgt")}
    data = data_config(tmp_path / "d", train=(corpus,), max_source_length=25, max_target_length=15)
    manifest = prepare(data, TokenizerConfig(vocabulary_size=60), silent)

    tokenizer = load_tokenizers(tmp_path / "d", manifest)["src"]
    source, target = (tokenizer.encode_field(side).lengths for side in (sources, targets))
    empty = (source == 1) | (target == 1)
    assert manifest.counts.dropped == {
        "empty": 3,
        "source_too_long": (~empty & (source > 25)).sum(),
        "target_too_long": (~empty & (source <= 25) & (target > 15)).sum(),
    }
    assert min(manifest.counts.dropped.values()) > 0
    assert manifest.counts.kept == 100 - sum(manifest.counts.dropped.values())
    assert (manifest.load_lengths(tmp_path / "d") <= [25, 15]).all()


def test_nothing_left_is_an_error(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    data = data_config(tmp_path / "d", max_source_length=2, max_target_length=2)
    with pytest.raises(CorpusError, match=r"None of the 500 training pairs .*max_source_length=2"):
        prepare(data, tokenizer_config, silent)
    assert list(tmp_path.iterdir()) == []


def test_separate_tokenizers(data_config: MakeData, tmp_path: Path) -> None:
    config = TokenizerConfig(vocabulary_size=100, joint=False)
    manifest = prepare(data_config(tmp_path / "d"), config, silent)
    files = {field: info.file for field, info in manifest.tokenizers.items()}
    assert files == {"src": "tokenizer.src.model", "tgt": "tokenizer.tgt.model"}
    tokenizers = load_tokenizers(tmp_path / "d", manifest)
    assert tokenizers["src"].model != tokenizers["tgt"].model


def test_existing_model(dataset: Path, data_config: MakeData, tmp_path: Path) -> None:
    model = dataset / "tokenizer.model"
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    config = TokenizerConfig(vocabulary_size=120, model=str(model), model_sha256=sha256)
    manifest = prepare(data_config(tmp_path / "d"), config, silent)
    assert manifest.shards == Manifest.load(dataset).shards
    assert manifest.tokenizers == Manifest.load(dataset).tokenizers


@pytest.mark.parametrize("which", ["train", "validation"])
def test_bad_corpora_leave_no_dataset(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path, which: str
) -> None:
    folder = tmp_path / "corpora"
    folder.mkdir()
    (folder / "a").write_bytes(b"one\ntwo\n")
    (folder / "b").write_bytes(b"one\n")
    bad = {"source": str(folder / "a"), "target": str(folder / "b")}
    data = data_config(tmp_path / "d", **{which: (bad,) if which == "train" else bad})
    with pytest.raises(CorpusError, match=r"line 2 of .*/a has no partner"):
        prepare(data, tokenizer_config, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["corpora"]


def test_impossible_vocabulary_leaves_no_dataset(data_config: MakeData, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="vocabulary_size=20000"):
        prepare(data_config(tmp_path / "d"), TokenizerConfig(vocabulary_size=20_000), silent)
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_no_dataset(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    def interrupt(progress: PrepareProgress) -> None:
        if progress.stage == "write" and progress.done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data_config(tmp_path / "d"), tokenizer_config, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_real_corpus_from_the_mirror(multi30k: Path, tmp_path: Path) -> None:
    """Multi30k's validation set, as URLs with hashes, read from the mirror."""
    base = "https://nowhere.invalid/task1/raw"
    corpus = {
        "source": f"{base}/val.en.gz",
        "target": f"{base}/val.de.gz",
        "source_sha256": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
        "target_sha256": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    }
    data = DataConfig.model_validate(
        {
            "source_language": "en",
            "target_language": "de",
            "mirror": str(multi30k),
            "dataset": str(tmp_path / "d"),
            "train": (corpus,),
            "validation": corpus,
            "pairs_per_block": 64,
        }
    )
    manifest = prepare(data, TokenizerConfig(vocabulary_size=2000), silent)
    assert manifest.counts.kept == 1014
    batching = BatchingConfig(
        max_tokens_per_micro_batch=512, micro_batches_per_step=1, window_shards=2
    )
    reader = WindowReader(tmp_path / "d", batching, seed=0)
    pairs: list[int] = []
    for step in local_rank_steps(reader, Cursor(), 0, 1, 1):
        if step.cursor.epoch:
            break
        pairs += step.micro_batches[0].pair_ids.tolist()
    assert sorted(pairs) == list(range(1014))
