"""The phrase book as a whole: its splits and withheld combinations by brute force."""

import bz2
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest
from phrasebook import sampler
from phrasebook import words as words

from data_pipeline.storage.phrasebook import FILE, SPLITS, phrasebook_pairs

SCRIPTS = Path(sampler.__file__).parents[1]
Book = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def book() -> Book:
    return {split: phrasebook_pairs(split) for split in SPLITS}


@pytest.mark.long
@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_grammar_makes_the_phrase_book_in_every_process(hash_seed: str) -> None:
    program = "import phrasebook.sampler; print(phrasebook.sampler.book_text())"
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SCRIPTS)}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert printed.stdout == bz2.decompress(FILE.read_bytes()) + b"\n"


@pytest.mark.parametrize("side", [0, 1], ids=["French", "English"])
def test_no_sentence_is_in_two_splits_nor_twice_in_one(book: Book, side: int) -> None:
    sentences = {split: [pair[side] for pair in book[split]] for split in SPLITS}
    for split, found in sentences.items():
        assert len(set(found)) == len(found), split
    for one, other in combinations(SPLITS, 2):
        assert not set(sentences[one]) & set(sentences[other])


@pytest.mark.long
def test_a_sentence_has_one_translation_in_either_direction() -> None:
    to_english, to_french = defaultdict(set), defaultdict(set)
    for french, english in sampler.drawn_pairs():
        to_english[french].add(english)
        to_french[english].add(french)
    assert [found for found in to_english.items() if len(found[1]) > 1] == []
    assert [found for found in to_french.items() if len(found[1]) > 1] == []


def test_withheld_combinations_never_meet_in_training(book: Book) -> None:
    """By brute force over all words of all sentences, not by the function that withheld them."""
    sentences_with = defaultdict(set)
    for position, (french, _) in enumerate([*book["train"], *book["validation"]]):
        for word in re.split(r"[^\w]+", french):
            sentences_with[word].add(position)

    def containing(forms: frozenset[str]) -> set[int]:
        return set().union(*(sentences_with[form] for form in forms))

    for withheld in sampler.withheld_combinations():
        first, second = containing(withheld.first), containing(withheld.second)
        assert first, f"{withheld.first} is never trained on"
        assert second, f"{withheld.second} is never trained on"
        assert not first & second, withheld


def test_the_test_set_holds_all_kinds_of_withheld_combinations(book: Book) -> None:
    kinds = Counter(sampler.withheld_kind(french) for french, _ in book["test"])
    assert kinds == {
        "": 520,
        "person × profession": 160,
        "thing × colour": 160,
        "verb × tense × negation": 160,
    }
    met = {
        withheld
        for withheld in sampler.withheld_combinations()
        for french, _ in book["test"]
        if sampler.words_of(french) & withheld.first and sampler.words_of(french) & withheld.second
    }
    assert len(met) > 100


def test_no_word_of_the_held_out_sets_is_new(book: Book) -> None:
    for side in (0, 1):
        trained = Counter(w for pair in book["train"] for w in re.findall(r"\w+", pair[side]))
        held_out = [*book["validation"], *book["test"]]
        unknown = {w for pair in held_out for w in re.findall(r"\w+", pair[side])} - set(trained)
        # A few forms of a verb are seen only by their stem and ending: nous achèterons.
        assert len(unknown) <= (3 if side == 0 else 0), unknown


def test_sentences_are_written_like_sentences(book: Book) -> None:
    pairs = [pair for split in SPLITS for pair in book[split]]
    names = {name.french for name in words.NAMES}
    for french, english in pairs:
        for text in (french, english):
            assert text == " ".join(text.split()), text
            assert not re.search(r"[.,;:!]", text), text
        first = re.split(r"[ ']", french)[0]
        assert first[0].islower() or first in names, french
        assert french.endswith(" ?") == english.endswith("?"), (french, english)
        assert not re.search(r"\bi\b", english), english


def test_french_always_elides_and_contracts(book: Book) -> None:
    missed = re.compile(
        r"\b(?:je|ne|de|le|la|que|ce|ma) [aeiouhàâéèêëîïôûœ]"
        r"|\b(?:à|de) les? |\b(?:beau|nouveau) [aeiouhéœ]|'[bcdfgj-np-tv-xz]",
        re.IGNORECASE,
    )
    wrong = [french for split in SPLITS for french, _ in book[split] if missed.search(french)]
    assert wrong == []


def test_english_agrees_with_its_subject(book: Book) -> None:
    missed = re.compile(
        r"\ba [aeio]|\ban [^aeiouh]|\b(?:he|she) (?:are|am|were)\b"
        r"|\b(?:they|we|you) (?:is|am|was|has|does)\b|\bI (?:is|are|were|has|does)\b"
        r"|\b(?:does|did|do|will|can|must)(?: not)? (?:is|are|was|were|has|had|\w+ing)\b"
    )
    wrong = [english for split in SPLITS for _, english in book[split] if missed.search(english)]
    assert wrong == []
