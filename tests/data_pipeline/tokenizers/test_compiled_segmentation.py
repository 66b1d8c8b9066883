"""Compiled code draws what the reference in Python draws, to the bit; a wrong one is not used."""

import logging
import math
import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.random_keys import splitmix64
from data_pipeline.tokenizers import compiled_segmentation
from data_pipeline.tokenizers.compiled_segmentation import (
    LIBRARY,
    SOURCE,
    CompiledSegmentation,
    Library,
    LibraryError,
    fastest,
)
from data_pipeline.tokenizers.random_segmentation import (
    BpeDropout,
    Pieces,
    PythonSegmentation,
    UnigramSampling,
)
from data_pipeline.tokenizers.tokenizer import train_tokenizer
from hatch_build import compile_segmenter

KINDS = (BpeDropout, UnigramSampling)
ALPHAS = {BpeDropout: (0.0, 0.1, 0.5, 1.0), UnigramSampling: (0.0, 0.1, 0.2, 1.0, 1000.0)}
END = 3
LETTERS = ("ab", "▁ab", "▁abcde☃", "▁aß😀\n\0\x1b\u200b<>")
NASTY = [
    *(
        "",
        "▁",
        "▁▁▁",
        "☃",
        "☃☃▁☃",
        "😀👩‍👩‍👧‍👦",
        "\0\0\x1b[31m",
        "a\nb\r\n\u2028c",
        "\ufeff\ufffd\u202e",
    ),
    *("<s>", "▁<unk></s><2de>", "<0x41>", "a" * 2000, "ab" * 1000, "▁a" * 1000, "☃😀" * 500),
    *("".join(map(chr, range(1, 0x300))), "\U0010ffff\ue000\ud7ff\x7f\x80\u07ff\u0800\uffff"),
]
SETTINGS: list[dict[str, object]] = [{}, {"byte_fallback": True}, {"verbatim": True}]


def same_draws(library: Library, pieces: Pieces, texts: list[str], seed: int) -> int:
    """Asserts that both draw the same, and says how many sequences were compared."""
    seeds = splitmix64(seed, len(texts))
    for kind in KINDS:
        compiled, python = CompiledSegmentation(library, kind, pieces), kind(pieces)
        for alpha in ALPHAS[kind]:
            found = compiled.sample_all(texts, alpha, seeds, END)
            expected = python.sample_all(texts, alpha, seeds, END)
            assert found.ids.dtype == expected.ids.dtype == np.int32
            assert found.lengths.tolist() == expected.lengths.tolist()
            assert found.ids.tolist() == expected.ids.tolist()
            if isinstance(python, UnigramSampling):
                for text in texts[:5]:
                    assert compiled.thresholds(text, alpha) == python.thresholds(text, alpha)
    return len(texts) * sum(map(len, ALPHAS.values()))


def random_pieces(rng: random.Random, letters: str) -> Pieces:
    """Of few letters, so that they overlap; often of equal scores, so that order decides."""
    longest = rng.choice((2, 4, 9))
    spellings = {
        "".join(rng.choices(letters, k=rng.randint(1, longest))) for _ in range(rng.randint(1, 60))
    }
    if rng.random() < 0.7:  # else pieces reach across spaces
        spellings = {piece[0] + piece[1:].replace("▁", "") for piece in spellings}
    few = rng.random() < 0.5
    scores = {
        piece: rng.choice((-1.0, -2.0, -2.5)) if few else rng.uniform(-20, 0.5)
        for piece in sorted(spellings)
    }
    normal = {piece: (number,) for number, piece in enumerate(scores, start=300)}
    return Pieces(normal, scores, 1, tuple(range(20, 276)) if rng.random() < 0.4 else ())


@pytest.mark.matrix
@pytest.mark.parametrize("letters", LETTERS)
def test_random_models_and_texts(library: Library, letters: str) -> None:
    rng = random.Random(letters)
    compared = 0
    for trial in range(10):
        sizes = (0, 1, 2, 5, 20, 24, 25, 60, rng.randint(0, 300))
        texts = ["".join(rng.choices(f"{letters}x", k=rng.choice(sizes))) for _ in range(20)]
        compared += same_draws(library, random_pieces(rng, letters), texts, trial)
    assert compared == 10 * 20 * 9


@pytest.mark.matrix
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_trained_models_on_all_that_text_can_be(
    library: Library,
    sentences: Callable[[int, int], list[str]],
    kind: str,
    settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through the tokenizer, with its normalisation, ends and tags."""
    text = sentences(300, 7)
    config = TokenizerConfig.model_validate(
        {"type": kind, "vocabulary_size": 300 if settings else 110, **settings}
    )
    lines = [*text, *NASTY, *(f"{line} {text[0]}" for line in NASTY)]
    seeds = splitmix64(5, len(lines))
    drawn = []
    trained = train_tokenizer(text + ["☃ über <b>"] * 9, config, "test", ["<2de>"])
    for installed in (library, None):
        monkeypatch.setattr(
            compiled_segmentation, "installed_library", lambda found=installed: found
        )
        tokenizer = type(trained)(trained.model, "test")
        drawn.append([tokenizer.sample_field(lines, seeds, a, "<2de>") for a in (0.1, 0.6)])
    for ours, theirs in zip(*drawn, strict=True):
        assert ours.lengths.tolist() == theirs.lengths.tolist()
        assert ours.ids.tolist() == theirs.ids.tolist()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_real_sentences(
    library: Library, multi30k: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (multi30k / "val.de").read_text().splitlines()
    lines += (multi30k / "train.de").read_text().splitlines()[:1500]
    config = TokenizerConfig.model_validate({"type": kind, "vocabulary_size": 2000})
    tokenizer = train_tokenizer(lines[:2000], config, "test")
    monkeypatch.setattr(compiled_segmentation, "installed_library", lambda: library)
    seeds = splitmix64(1, len(lines))
    ours = tokenizer.sample_field(lines, seeds, 0.15)
    monkeypatch.setattr(compiled_segmentation, "installed_library", lambda: None)
    theirs = type(tokenizer)(tokenizer.model, "test").sample_field(lines, seeds, 0.15)
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    assert ours.ids.tolist() == theirs.ids.tolist()


def pieces_of(scores: dict[str, float], **others: object) -> Pieces:
    values: dict[str, object] = {"unknown": 1, "bytes": (), **others}
    normal = {piece: (number,) for number, piece in enumerate(scores, start=300)}
    return Pieces(normal, scores, **values)  # type: ignore[arg-type]


SYLLABLES = {"▁": -5.0, "a": -4.0, "b": -4.5, "ab": -1.0, "ba": -1.0, "abab": -2.0, "▁ab": -3.0}


@pytest.mark.parametrize("bytes_", [(), tuple(range(20, 276))], ids=["unknown", "bytes"])
def test_all_that_text_can_be_of_few_pieces(library: Library, bytes_: tuple[int, ...]) -> None:
    assert same_draws(library, pieces_of(SYLLABLES, bytes=bytes_), NASTY, 9) > 100
    across = pieces_of(SYLLABLES | {"a▁b": -1.5, "\n": -2.0}, bytes=bytes_)
    assert same_draws(library, across, NASTY, 9) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_megabyte_without_a_space(library: Library, kind: type[PythonSegmentation]) -> None:
    """In quadratic time this would take hours. Python's answer is compared for a part of it."""
    letters = splitmix64(3, 2**20) & np.uint64(1)
    text = (letters.astype(np.uint8) + ord("a")).tobytes().decode()
    pieces = pieces_of(SYLLABLES)
    seeds = splitmix64(0, 1)
    compiled = CompiledSegmentation(library, kind, pieces)
    names = {number: piece for piece, (number,) in pieces.normal.items()}
    *ids, end = compiled.sample_all([text], 0.2, seeds, END).ids.tolist()
    assert end == END
    assert "".join(map(names.__getitem__, ids)) == text
    part = text[:20_000]
    expected = kind(pieces).sample_all([part], 0.2, seeds, END).ids.tolist()
    assert compiled.sample_all([part], 0.2, seeds, END).ids.tolist() == expected


def test_python_looks_up_a_long_word_in_linear_time() -> None:
    """Each merge looks at two new neighbours, however long the word is."""

    class Counting(dict[str, float]):
        looked_up = 0

        def get(self, *arguments: object) -> object:  # type: ignore[override]
            Counting.looked_up += 1
            return super().get(*arguments)  # type: ignore[call-overload]

    pieces = pieces_of(Counting(SYLLABLES))
    BpeDropout(pieces).sample("ab" * 10_000, 0.1, 0)
    assert Counting.looked_up < 3 * 20_000


def test_nothing_and_nothing_but_empty_texts(library: Library) -> None:
    for kind in KINDS:
        compiled = CompiledSegmentation(library, kind, pieces_of(SYLLABLES))
        none = compiled.sample_all([], 0.1, splitmix64(0, 0), END)
        assert (none.ids.tolist(), none.lengths.tolist()) == ([], [])
        empty = compiled.sample_all(["", ""], 0.1, splitmix64(0, 2), END)
        assert (empty.ids.tolist(), empty.lengths.tolist()) == ([END, END], [1, 1])


def test_several_threads_at_a_time(library: Library) -> None:
    texts = ["▁abba▁ab☃▁baab" * n for n in range(60)]
    seeds = splitmix64(1, len(texts))
    for kind in KINDS:
        compiled = CompiledSegmentation(library, kind, pieces_of(SYLLABLES))
        expected = compiled.sample_all(texts, 0.2, seeds, END).ids.tolist()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(compiled.sample_all, texts, 0.2, seeds, END) for _ in range(40)]
            assert all(answer.result().ids.tolist() == expected for answer in asked)


@pytest.mark.parametrize(
    "pieces",
    [
        pieces_of({"a": math.nan, "b": -1.0}),
        pieces_of({"a": -math.inf, "b": -1.0}),
        pieces_of({"a": -1.0}, bytes=(5, 6, 7)),
        Pieces({"a": (4,)}, {"a": -1.0, "b": -1.0}, 1, ()),
    ],
    ids=["nan", "inf", "few bytes", "a score alone"],
)
def test_odd_models_are_left_to_python(
    library: Library, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_segmentation, "installed_library", lambda: library)
    assert type(fastest(BpeDropout, pieces)) is BpeDropout
    assert type(fastest(BpeDropout, pieces_of(SYLLABLES))) is CompiledSegmentation


@pytest.fixture
def forget() -> Iterator[None]:
    """What this process knows of the installed library is looked up anew, here and afterwards."""
    compiled_segmentation.installed_library.cache_clear()
    yield
    compiled_segmentation.installed_library.cache_clear()


def compiled_of(folder: Path, source: str) -> Path:
    (folder / "other.c").write_text(source)
    compile_segmenter(folder / "other.c", folder / "libsegmenter.so")
    return folder / "libsegmenter.so"


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("found", [True, False])
def test_the_log_says_what_draws(
    library: Library,
    found: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = compiled_of(tmp_path, SOURCE.read_text()) if found else tmp_path / "none.so"
    monkeypatch.setattr(compiled_segmentation, "LIBRARY", path)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            drawing = fastest(UnigramSampling, pieces_of(SYLLABLES))
    assert type(drawing) is (CompiledSegmentation if found else UnigramSampling)
    (record,) = caplog.records
    assert record.levelno == (logging.INFO if found else logging.WARNING)
    assert ("by compiled code" if found else f"there is no {path}") in record.getMessage()


def test_a_library_of_another_source_is_not_used(library: Library, tmp_path: Path) -> None:
    path = compiled_of(tmp_path, SOURCE.read_text() + "\n")
    with pytest.raises(LibraryError, match=r"was built from another segmenter\.c"):
        Library(path)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("exp(m->sums[k] - highest)", "exp2((m->sums[k] - highest) * 1.4426950408889634)"),
        ("a->left < b->left", "a->left > b->left"),
        ("z ^ z >> 27", "z ^ z >> 26"),
        ("out->ids[-1] == id", "out->ids[-1] == id + 1"),
    ],
    ids=["sums", "order", "draws", "unknown"],
)
def test_a_library_that_draws_otherwise_is_not_used(
    library: Library, tmp_path: Path, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a compiler that takes shortcuts, or another mathematical library."""
    assert right in SOURCE.read_text()
    path = compiled_of(tmp_path, SOURCE.read_text().replace(right, wrong))
    monkeypatch.setattr(compiled_segmentation, "SOURCE", tmp_path / "other.c")
    with pytest.raises(LibraryError, match="does not draw the same as Python"):
        Library(path)


@pytest.mark.parametrize("content", [b"", b"\x7fELF of another processor"])
def test_a_file_that_is_no_library_is_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "libsegmenter.so").write_bytes(content)
    with pytest.raises(LibraryError, match="cannot be loaded"):
        Library(tmp_path / "libsegmenter.so")


def test_a_failed_compilation_leaves_the_library_as_it_was(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libsegmenter.so").write_bytes(b"before")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        compiled_of(tmp_path, SOURCE.read_text() + "no C")
    assert "error" in failed.value.stderr
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(FileNotFoundError):
        compiled_of(tmp_path, SOURCE.read_text())
    assert (tmp_path / "libsegmenter.so").read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"libsegmenter.so", "other.c"}


def test_the_library_lies_beside_the_module_and_nowhere_else() -> None:
    """Code is loaded from where transloom is installed, which others cannot write."""
    assert LIBRARY.parent == SOURCE.parent == Path(compiled_segmentation.__file__).parent
