"""Random segmentations of random_segmentation.py, drawn by compiled code.

    segmenter.c ──hatch_build.py, when transloom is installed──▶ libsegmenter.so, in this folder
    (kind, pieces) ──fastest──▶ CompiledSegmentation, or the kind in Python without a library

A kind is `BpeDropout` or `UnigramSampling`. Compiled code and Python return exactly the same
pieces, so processes may use either, and a run may switch between them. The library is used only if
it was built from this segmenter.c and draws the same pieces as Python in a trial when it is loaded.
The trial takes 25 ms.
"""

import ctypes
import hashlib
import math
import sys
import weakref
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.arrays import FieldArrays, Int32Array, Int64Array, UInt64Array
from data_pipeline.random_keys import splitmix64
from data_pipeline.tokenizers.random_segmentation import (
    BpeDropout,
    Pieces,
    PythonSegmentation,
    RandomSegmentation,
    UnigramSampling,
)
from foundation.untrusted_text import logger_of

logger = logger_of(__name__)

SOURCE = Path(__file__).with_name("segmenter.c")
LIBRARY = Path(__file__).with_name("libsegmenter.so")
CODE_POINTS = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"
MAX_BYTES = 4  # maximum for a character in UTF-8
TRIAL_TEXTS = 40
BY_COMPILED_CODE = "by compiled code"


def fastest(kind: type[PythonSegmentation], pieces: Pieces) -> RandomSegmentation:
    """Return a sampler of random segmentations that uses compiled code if possible."""
    library = installed_library()
    if library is None or not library.holds(pieces):
        return kind(pieces)
    return CompiledSegmentation(library, kind, pieces)


@lru_cache(1)
def installed_library() -> "Library | None":
    """Return the library next to this file, or None; log once per process which code is used."""
    library, backend_text = _library_and_text()
    log = logger.info if library else logger.warning
    log("Subword sampling draws %s", backend_text)
    return library


def sampling_backend_text() -> str:
    """Return the end of the phrase "subword sampling draws …" for this machine."""
    return _library_and_text()[1]


def _library_and_text() -> "tuple[Library | None, str]":
    try:
        return Library(LIBRARY), BY_COMPILED_CODE
    except LibraryError as error:
        return None, (
            "in Python, which takes about ten times as long as compiled code but draws the same "
            f"pieces: {error}. Install transloom again with a C compiler on this machine"
        )


class LibraryError(Exception):
    """The library is missing, was built from another source, or draws other pieces than Python."""


class Library:
    """Compiled code of segmenter.c."""

    def __init__(self, path: Path) -> None:
        """Load the library and test it.

        Raises:
            LibraryError: the library cannot be used.
        """
        if not path.is_file():
            raise LibraryError(f"there is no {path}")
        try:
            functions = ctypes.CDLL(str(path))
            functions.segmenter_source.restype = ctypes.c_char_p
            made_of = str(functions.segmenter_source().decode())
        except (OSError, AttributeError) as error:
            raise LibraryError(f"{path} cannot be loaded ({error})") from error
        source = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
        if made_of != source:
            raise LibraryError(
                f"{path} was built from another segmenter.c (sha256 {made_of[:12]}…) than the one "
                f"in its folder ({source[:12]}…)"
            )
        _declare(functions)
        self.functions = functions
        for kind in (BpeDropout, UnigramSampling):
            if not _draws_alike(self, kind):
                raise LibraryError(f"{path} does not draw the same as Python on this machine")

    @staticmethod
    def holds(pieces: Pieces) -> bool:
        """Return whether the compiled code supports these pieces, as it does for usual models."""
        return (
            len(pieces.normal) > 0
            and pieces.normal.keys() == pieces.scores.keys()
            and all(map(math.isfinite, pieces.scores.values()))
            and len(pieces.bytes) in (0, 256)
        )


class CompiledSegmentation(RandomSegmentation):
    """Random segmentations, by BPE-dropout or unigram sampling, drawn by compiled code.

    Several threads may sample at the same time, without holding the GIL.
    """

    def __init__(self, library: Library, kind: type[PythonSegmentation], pieces: Pieces) -> None:
        assert library.holds(pieces)
        self._functions = library.functions
        self._ids_of_a_character = MAX_BYTES if pieces.bytes else 1
        self._longest = max(map(len, pieces.normal))
        spelt = np.array(pieces.bytes, dtype=np.int32)
        characters, lengths = _flat(list(pieces.normal))
        ids = np.array([number for (number,) in pieces.normal.values()], dtype=np.int32)
        scores = np.array([pieces.scores[piece] for piece in pieces.normal], dtype=np.float64)
        self._segmenter = self._functions.segmenter_new(
            characters,
            lengths.ctypes.data,
            ids.ctypes.data,
            scores.ctypes.data,
            len(ids),
            pieces.unknown,
            pieces.unknown_score,
            spelt.ctypes.data if len(spelt) else None,
            not pieces.reach_across_spaces,
            issubclass(kind, UnigramSampling),
        )
        if not self._segmenter:
            raise MemoryError(f"no memory for a trie of {len(ids):,} pieces")
        end = weakref.finalize(self, self._functions.segmenter_free, self._segmenter)
        end.atexit = False  # a thread may still draw at exit

    def sample_all(
        self, texts: list[str], alpha: float, seeds: UInt64Array, end: int
    ) -> FieldArrays:
        """See `RandomSegmentation.sample_all`."""
        characters, lengths = _flat(texts)
        seeds = np.ascontiguousarray(seeds, dtype=np.uint64)
        assert seeds.shape == lengths.shape
        room = self._ids_of_a_character * int(lengths.sum()) + len(lengths)
        ids: Int32Array = np.empty(room, dtype=np.int32)
        counts: Int32Array = np.empty(len(lengths), dtype=np.int32)
        written = self._functions.segmenter_sample(
            self._segmenter,
            characters,
            lengths.ctypes.data,
            seeds.ctypes.data,
            len(lengths),
            alpha,
            end,
            ids.ctypes.data,
            counts.ctypes.data,
        )
        if written < 0:
            raise MemoryError(f"no memory for segmentations of {int(lengths.max()):,} characters")
        return FieldArrays(ids[:written].copy(), counts)

    def thresholds(self, word: str, alpha: float) -> list[int]:
        """See `UnigramSampling.thresholds`."""
        characters, lengths = _flat([word])
        room = np.empty(len(word) * self._longest, dtype=np.int64)
        count = self._functions.segmenter_thresholds(
            self._segmenter, characters, int(lengths[0]), alpha, room.ctypes.data
        )
        if count < 0:
            raise MemoryError(f"no memory for the pieces of {len(word):,} characters")
        return room[:count].tolist()


def _flat(texts: list[str]) -> tuple[bytes, Int64Array]:
    """Return the concatenated code points of all texts, and the length of each text: [texts]."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    return "".join(texts).encode(CODE_POINTS), lengths


def _declare(functions: ctypes.CDLL) -> None:
    """Declare the types of segmenter.c's functions."""
    pointer, number, whole = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    text, real = ctypes.c_char_p, ctypes.c_double
    functions.segmenter_new.restype = pointer
    functions.segmenter_new.argtypes = [
        *(text, pointer, pointer, pointer, whole),
        *(number, real, pointer, ctypes.c_int, ctypes.c_int),
    ]
    functions.segmenter_free.restype = None
    functions.segmenter_free.argtypes = [pointer]
    functions.segmenter_sample.restype = whole
    functions.segmenter_sample.argtypes = [
        *(pointer, text, pointer, pointer, whole),
        *(real, number, pointer, pointer),
    ]
    functions.segmenter_thresholds.restype = whole
    functions.segmenter_thresholds.argtypes = [pointer, text, ctypes.c_uint32, real, pointer]


def _draws_alike(library: Library, kind: type[PythonSegmentation]) -> bool:
    """Return whether the library's sums, roundings and draws equal Python's on this machine."""
    letters = "▁abc☃"
    scores = {
        first + second: -1.0 - 0.37 * number
        for number, (first, second) in enumerate((f, s) for s in ["", *"abc"] for f in "▁abc")
    }
    scores |= {"abab": -0.3, "▁abc": -2.9, "cabc": -1.1}
    normal = {piece: (number,) for number, piece in enumerate(scores, start=4)}
    pieces = Pieces(normal, scores, unknown=1, bytes=())
    drawn = splitmix64(0, 64 * TRIAL_TEXTS) % np.uint64(len(letters))
    text = "".join(letters[number] for number in drawn.tolist())
    texts = [text[start : start + 64] for start in range(0, len(text), 64)]
    seeds = splitmix64(1, TRIAL_TEXTS)
    compiled, python = CompiledSegmentation(library, kind, pieces), kind(pieces)
    ours = compiled.sample_all(texts, 0.2, seeds, 3)
    expected = python.sample_all(texts, 0.2, seeds, 3)
    # A sum with another last bit would change only one draw in 10^15, so also compare thresholds.
    return (
        np.array_equal(ours.ids, expected.ids)
        and np.array_equal(ours.lengths, expected.lengths)
        and (
            not isinstance(python, UnigramSampling)
            or all(compiled.thresholds(text, 0.2) == python.thresholds(text, 0.2) for text in texts)
        )
    )
