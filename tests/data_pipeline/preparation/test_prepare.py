"""`prepare` as a whole: repeatable bytes, every pair in its place, and refusals with reasons."""

import hashlib
import shutil
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from support.data_settings import settings_of
from support.files.hashes import hashes_in
from support.records.run_folders import dead_process

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings, TokenizerConfig
from data_pipeline.config.pair import PairCorpusConfig, PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.verification import problems_of
from data_pipeline.errors import CorpusError, DatasetError, TokenizerError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import PrepareProgress
from data_pipeline.preparation.quarantine import quarantine
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import load_tokenizers

MakeData = Callable[..., PairDataConfig]
ReadPairs = Callable[[Path], list[tuple[str, str]]]


def silent(progress: PrepareProgress) -> None:
    """Ignore the progress."""


def load(dataset: Path) -> Manifest:
    return Manifest.load(open_store(dataset))


def test_preparing_again_gives_the_same_bytes(
    dataset: Path, data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    prepare(settings_of(data_config(tmp_path / "again"), tokenizer_config), silent)
    assert hashes_in(tmp_path / "again") == hashes_in(dataset)


def test_shards_contain_every_pair_in_shuffled_order(
    dataset: Path, corpus: Callable[[str], PairCorpusConfig], read_pairs: ReadPairs
) -> None:
    lines = [Path(str(path)).read_text().splitlines() for path in corpus("train").locations]
    expected = list(zip(*lines, strict=True))
    pairs = read_pairs(dataset)
    assert sorted(pairs) == sorted(expected)
    position = {pair: number for number, pair in enumerate(expected)}
    order = [position[pair] for pair in pairs]
    # In a random order, half of the neighbours ascend, and a pair moves by a third on average.
    assert 200 < sum(one < other for one, other in pairwise(order)) < 300
    assert sum(abs(place - number) for place, number in enumerate(order)) > 500 * 500 / 4


def test_the_progress_of_each_stage_reaches_its_total(
    data_config: MakeData, tokenizer_config: TokenizerConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    reports: list[PrepareProgress] = []
    prepare(settings_of(data_config(tmp_path / "d"), tokenizer_config), reports.append)
    read = sum((corpus_folder / f"train{side}").stat().st_size for side in (".src", ".tgt"))
    last = {report.stage: (report.done, report.total) for report in reports}
    assert last == {
        "open": (1, 1),
        "read": (read, read),
        "train tokenizer": (1, 1),
        "write": (500, 500),
    }
    assert list(last) == ["open", "read", "train tokenizer", "write"]


def test_an_unchanged_dataset_is_kept_and_reported_without_remains_of_a_killed_process(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    data = data_config(tmp_path / "d")
    first = prepare(settings_of(data, tokenizer_config), silent)
    (tmp_path / f".d.prepare-{socket.gethostname()}-{dead_process()}").mkdir()
    inode = (tmp_path / "d").stat().st_ino
    reports: list[PrepareProgress] = []
    second = prepare(settings_of(data, tokenizer_config), reports.append)
    assert second.identity == first.identity
    assert [report.stage for report in reports] == ["compare"] * 14 + ["unchanged"]
    assert reports[-1] == PrepareProgress("unchanged", 500, 500)
    assert (tmp_path / "d").stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


@pytest.mark.parametrize("damage", ["shard", "cleaning.json", "tokenizer.model"])
def test_a_damaged_dataset_is_repaired(
    dataset: Path,
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    tmp_path: Path,
    damage: str,
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "d"))
    manifest = load(copy)
    if damage == "shard":
        (copy / manifest.shards[0].name).write_bytes(b"damaged")
    else:
        (copy / damage).unlink()
    repaired = prepare(settings_of(data_config(copy), tokenizer_config), silent)
    assert repaired.identity == manifest.identity
    assert (
        problems_of(str(copy), repaired, rules_by_corpus(repaired), 1, lambda done, total: None)
        == []
    )
    assert list(tmp_path.iterdir()) == [copy]


def test_a_dataset_with_other_settings_is_replaced_only_on_request(
    dataset: Path, data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "d"))
    other = data_config(copy, max_target_length=20)
    with pytest.raises(
        DatasetError, match=r"max_target_length: 'not set' in .* 20 in .*--overwrite"
    ):
        prepare(settings_of(other, tokenizer_config), silent)
    assert hashes_in(copy) == hashes_in(dataset)
    replaced = prepare(settings_of(other, tokenizer_config), silent, overwrite=True)
    assert replaced.identity == load(copy).identity != load(dataset).identity
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_changed_corpus_is_refused(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    corpus_folder: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """A training corpus has the name of a held-out set."""
    mirror = Path(shutil.copytree(corpus_folder, tmp_path / "mirror"))
    train = {"source": "train.src", "target": "train.tgt", "name": "validation"}
    data = data_config(tmp_path / "d", mirror=str(mirror), train=[train])
    prepare(settings_of(data, tokenizer_config), silent)
    for side in (".src", ".tgt"):
        with (mirror / (name + side)).open("a") as file:
            file.write("ba\n")
    with pytest.raises(DatasetError):
        prepare(settings_of(data, tokenizer_config), silent)


def test_text_that_is_pinned_by_its_hash_may_later_be_missing(
    data_config: MakeData, tokenizer_config: TokenizerConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    mirror = Path(shutil.copytree(corpus_folder, tmp_path / "mirror"))

    def pinned(name: str) -> dict[str, str]:
        settings = {}
        for side, path in (("source", mirror / f"{name}.src"), ("target", mirror / f"{name}.tgt")):
            settings[side] = str(path)
            settings[f"{side}_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return settings

    data = data_config(
        tmp_path / "d", train=[pinned("train")], validation=pinned("validation"), tests={}
    )
    first = prepare(settings_of(data, tokenizer_config), silent)
    shutil.rmtree(mirror)
    assert prepare(settings_of(data, tokenizer_config), silent).identity == first.identity


@pytest.mark.parametrize("manifest", ["{", '{"format": "transloom-dataset/1"}'])
def test_an_unreadable_dataset_is_replaced_only_on_request(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path, manifest: str
) -> None:
    (tmp_path / "d" / "shards").mkdir(parents=True)
    (tmp_path / "d" / "manifest.json").write_text(manifest)
    data = data_config(tmp_path / "d")
    with pytest.raises(DatasetError):
        prepare(settings_of(data, tokenizer_config), silent)
    prepare(settings_of(data, tokenizer_config), silent, overwrite=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


@pytest.mark.parametrize("drops", [False, True])
def test_held_out_pairs_in_the_training_text_are_counted_and_dropped_on_request(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    corpus_folder: Path,
    read_pairs: ReadPairs,
    tmp_path: Path,
    drops: bool,
) -> None:
    lines = [(corpus_folder / f"train.{side}").read_text().splitlines() for side in ("src", "tgt")]
    train = list(zip(*lines, strict=True))
    changed = [(f"  {source.upper()}", target) for source, target in train[:3]]
    others = [("not in training", "nicht im Training"), (train[0][0], "another target")]
    for name, pairs in (("validation", [*train[10:15], *changed, *others]), ("test", others)):
        for side, texts in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
            (tmp_path / f"{name}.{side}").write_text("".join(f"{text}\n" for text in texts))

    def both(name: str) -> dict[str, str]:
        return {"source": str(tmp_path / f"{name}.en"), "target": str(tmp_path / f"{name}.de")}

    config = data_config(
        tmp_path / "d",
        validation=both("validation"),
        tests={"test": both("test")},
        cleaning={"drop_heldout": drops},
    )
    manifest = prepare(settings_of(config, tokenizer_config), silent)
    validation = manifest.heldout["validation"]
    exactly = 0 if drops else 5
    assert (validation.in_training, validation.in_training_exactly) == (exactly + 3, exactly)
    assert (manifest.heldout["test"].in_training, len(manifest.leaks)) == (0, 1)
    assert f"{exactly + 3} of 10 pairs of the held-out set validation" in manifest.leaks[0]
    assert manifest.corpora[0].dropped.get("held_out", 0) == (5 if drops else 0)
    kept = read_pairs(tmp_path / "d")
    assert len(kept) == len(train) - (5 if drops else 0)


def test_a_url_is_refused_as_the_place_of_a_new_dataset(
    data_config: MakeData, tokenizer_config: TokenizerConfig
) -> None:
    data = data_config(Path("x")).model_copy(update={"dataset": "s3://bucket/x"})
    with pytest.raises(DatasetError, match=r"s3://bucket/x.* prepared in a local folder"):
        prepare(settings_of(data, tokenizer_config), silent)


def test_a_corpus_without_remaining_pairs_is_an_error(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    data = data_config(tmp_path / "d", max_source_length=2, max_target_length=2)
    with pytest.raises(CorpusError, match=r"No pair of the corpus train .*max_source_length=2"):
        prepare(settings_of(data, tokenizer_config), silent)
    data = data_config(tmp_path / "d", cleaning={"max_source_characters": 1})
    with pytest.raises(CorpusError, match=r"500 source characters.*Relax data\.cleaning"):
        prepare(settings_of(data, tokenizer_config), silent)
    assert list(tmp_path.iterdir()) == []


def test_separate_tokenizers_have_separate_files(data_config: MakeData, tmp_path: Path) -> None:
    config = TokenizerConfig(vocabulary_size=100, joint=False)
    manifest = prepare(settings_of(data_config(tmp_path / "d"), config), silent)
    files = {field: info.file for field, info in manifest.tokenizers.items()}
    assert files == {"src": "tokenizer.src.model", "tgt": "tokenizer.tgt.model"}
    tokenizers = load_tokenizers(open_store(tmp_path / "d"), manifest)
    assert tokenizers["src"].model != tokenizers["tgt"].model


def test_a_given_tokenizer_model_is_used(
    dataset: Path, manifest: Manifest, data_config: MakeData, tmp_path: Path
) -> None:
    model = dataset / "tokenizer.model"
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    config = TokenizerConfig(vocabulary_size=120, model=str(model), model_sha256=sha256)
    other = prepare(settings_of(data_config(tmp_path / "d"), config), silent)
    assert list(other.shards) == list(manifest.shards)
    assert other.tokenizers == manifest.tokenizers


def test_a_wrong_tokenizer_model_is_reported_before_any_text_is_read(
    dataset: Path, data_config: MakeData, tmp_path: Path
) -> None:
    model = dataset / "tokenizer.model"
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    reports: list[PrepareProgress] = []
    right = TokenizerConfig(vocabulary_size=120, model=str(model), model_sha256=sha256)
    tagged = {"source": "no such text", "target": "no such text", "tag": "<bt>"}
    data = data_config(tmp_path / "d")
    for recipe, config, message in (
        (data, right.model_copy(update={"vocabulary_size": 121}), "has 120 pieces"),
        (data, right.model_copy(update={"model_sha256": "0" * 64}), "has sha256"),
        (data, right.model_copy(update={"model": "/no/such.model"}), "cannot be read"),
        (data_config(tmp_path / "d", train=[tagged]), right, "The tag <bt> must be a control"),
    ):
        with pytest.raises(TokenizerError, match=message):
            prepare(settings_of(recipe, config), reports.append)
    assert reports == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["train", "validation"])
def test_invalid_corpora_leave_no_dataset(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path, which: str
) -> None:
    folder = tmp_path / "corpora"
    folder.mkdir()
    (folder / "a").write_bytes(b"one\ntwo\n")
    (folder / "b").write_bytes(b"one\n")
    bad = {"source": str(folder / "a"), "target": str(folder / "b")}
    data = data_config(tmp_path / "d", **{which: (bad,) if which == "train" else bad})
    with pytest.raises(CorpusError):
        prepare(settings_of(data, tokenizer_config), silent)
    assert list(tmp_path.iterdir()) == [folder]


def test_impossible_vocabulary_leaves_no_dataset(data_config: MakeData, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="vocabulary_size=20000"):
        prepare(
            settings_of(data_config(tmp_path / "d"), TokenizerConfig(vocabulary_size=20_000)),
            silent,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_real_corpus_is_read_from_the_mirror(
    multi30k: Path, data_settings: Callable[..., DataSettings], tmp_path: Path
) -> None:
    """The corpus is Multi30k's validation set, given as URLs with hashes."""
    base = "https://nowhere.invalid/task1/raw"
    corpus = {
        "source": f"{base}/val.en.gz",
        "target": f"{base}/val.de.gz",
        "source_sha256": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
        "target_sha256": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    }
    data = PairDataConfig.model_validate(
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
    manifest = prepare(settings_of(data, TokenizerConfig(vocabulary_size=2000)), silent)
    assert manifest.pairs == 1014
    settings = data_settings(
        tmp_path / "d", data=data, max_tokens_per_micro_batch=512, window_shards=2
    )
    reader = WindowReader(open_store(tmp_path / "d"), manifest, settings)
    pairs: list[int] = []
    for step in local_rank_steps(reader, Cursor(), 0, 1, 1):
        if step.cursor.epoch:
            break
        pairs += step.micro_batches[0].pair_ids.tolist()
    assert sorted(pairs) == list(range(1014))


def test_a_repair_keeps_tombstones_and_refuses_unknown_files(
    dataset: Path,
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    data = data_config(copy)
    shard = copy / Manifest.load(open_store(copy)).shards[0].name
    shard.write_bytes(b"damaged")
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"unknown files: notes\.txt"):
        prepare(settings_of(data, tokenizer_config), silent)
    (copy / "notes.txt").unlink()
    manifest = quarantine(copy, [Manifest.load(open_store(copy)).shards[1].name], "a test")
    with pytest.raises(DatasetError):
        prepare(settings_of(data, tokenizer_config), silent)
    assert Manifest.load(open_store(copy)).identity == manifest.identity
