"""The phrase book: its grammar against sentences written by hand, its splits by brute force."""

import hashlib
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from data_pipeline import phrasebook
from data_pipeline import phrasebook_words as words
from data_pipeline.errors import CorpusError
from data_pipeline.phrasebook_forms import Adjective, Noun
from data_pipeline.phrasebook_grammar import (
    conjugate,
    counted_phrase,
    finish_french,
    noun_phrase,
    number,
    sentence,
    to_be,
)

# The whole book, every sentence in its place. Whoever changes the book changes every dataset made
# from it: then this value changes too, on purpose.
BOOK_SHA256 = "842e6dae0fe6f18b42e9937c27b8564ee1dfd61ea5cca716795a8c7c337e7bc1"
SPLITS = ("train", "validation", "test")

PEOPLE = {person.french: person for person in words.PEOPLE}
VERBS = {verb.infinitive: verb for verb in (*words.VERBS, *words.MOVES, *words.LIKES)}


Book = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def book() -> Book:
    return {split: phrasebook.generate(split) for split in SPLITS}


def noun(french: str) -> Noun:
    return next(noun for noun in words.NOUNS if noun.french == french)


def adjective(english: str) -> Adjective:
    tables = (words.COLOURS, words.SIZES, words.CONDITIONS, words.QUALITIES, words.FEELINGS)
    return next(
        adjective for table in tables for adjective in table if adjective.english == english
    )


def test_sizes_suit_a_demonstration(book: Book) -> None:
    assert 24_000 <= len(book["train"]) <= 30_000
    assert len(book["validation"]) == 500
    assert len(book["test"]) == 1000
    lengths = Counter(len(french.split()) for french, _ in book["train"])
    assert sum(count for length, count in lengths.items() if length > 12) < 100
    assert max(lengths) <= 15


@pytest.mark.parametrize("side", [0, 1], ids=["French", "English"])
def test_no_sentence_is_in_two_splits_nor_twice_in_one(book: Book, side: int) -> None:
    sentences = {split: [pair[side] for pair in book[split]] for split in SPLITS}
    for split, found in sentences.items():
        assert len(set(found)) == len(found), split
    for one, other in combinations(SPLITS, 2):
        assert not set(sentences[one]) & set(sentences[other])


def test_a_sentence_has_one_translation_in_either_direction() -> None:
    to_english, to_french = defaultdict(set), defaultdict(set)
    for french, english in phrasebook.drawn_pairs():
        to_english[french].add(english)
        to_french[english].add(french)
    assert [found for found in to_english.items() if len(found[1]) > 1] == []
    assert [found for found in to_french.items() if len(found[1]) > 1] == []


def test_the_book_is_the_same_for_ever(book: Book) -> None:
    text = "\n".join(f"{split}\t{f}\t{e}" for split in SPLITS for f, e in book[split])
    assert hashlib.sha256(text.encode()).hexdigest() == BOOK_SHA256


def test_another_process_with_another_hash_seed_makes_the_same_book(book: Book) -> None:
    program = (
        "import hashlib; from data_pipeline.phrasebook import generate; "
        "print(hashlib.sha256(repr(generate('test')).encode()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "12345"}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == hashlib.sha256(repr(book["test"]).encode()).hexdigest()


def test_generating_leaves_random_alone_and_gives_lists_of_its_own() -> None:
    phrasebook._book.cache_clear()
    random.seed(7)
    state = random.getstate()
    first = phrasebook.generate("validation")
    assert random.getstate() == state
    first.clear()
    assert len(phrasebook.generate("validation")) == 500


def test_the_promised_sentence_is_trained_on(book: Book) -> None:
    assert ("je suis étudiant", "I am a student") in book["train"]
    assert not phrasebook.withheld_kind("je suis étudiant")


def test_an_unknown_split_is_named_with_those_there_are() -> None:
    with pytest.raises(CorpusError, match=r"'dev'.*train, validation, test"):
        phrasebook.generate("dev")


def test_withheld_combinations_never_meet_in_training(book: Book) -> None:
    """By brute force over all words of all sentences, not by the function that withheld them."""
    sentences_with = defaultdict(set)
    for position, (french, _) in enumerate([*book["train"], *book["validation"]]):
        for word in re.split(r"[^\w]+", french):
            sentences_with[word].add(position)

    def containing(forms: frozenset[str]) -> set[int]:
        return set().union(*(sentences_with[form] for form in forms))

    for withheld in phrasebook.withheld_combinations():
        first, second = containing(withheld.first), containing(withheld.second)
        assert first, f"{withheld.first} is never trained on"
        assert second, f"{withheld.second} is never trained on"
        assert not first & second, withheld


def test_the_test_set_holds_all_kinds_of_withheld_combinations(book: Book) -> None:
    kinds = Counter(phrasebook.withheld_kind(french) for french, _ in book["test"])
    assert kinds == {
        "": 520,
        "person × profession": 160,
        "thing × colour": 160,
        "verb × tense × negation": 160,
    }
    met = {
        withheld
        for withheld in phrasebook.withheld_combinations()
        for french, _ in book["test"]
        if phrasebook.words_of(french) & withheld.first
        and phrasebook.words_of(french) & withheld.second
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


@pytest.mark.parametrize(
    ("person", "verb", "tense", "negative", "french", "english"),
    [
        ("je", "acheter", "present", False, "j'achète", "I am buying"),
        ("je", "acheter", "past", True, "je n'ai pas acheté", "I did not buy"),
        ("nous", "manger", "present", False, "nous mangeons", "we are eating"),
        ("elle", "aller", "past", False, "elle est allée", "she went"),
        (
            "les femmes",
            "aller",
            "past",
            True,
            "les femmes ne sont pas allées",
            "the women did not go",
        ),
        (
            "Paul et Marie",
            "rentrer",
            "past",
            False,
            "Paul et Marie sont rentrés",
            "Paul and Marie came",
        ),
        ("vous", "prendre", "future", True, "vous ne prendrez pas", "you will not take"),
        ("ils", "appeler", "future", False, "ils appelleront", "they will call"),
        ("Anne", "habiter", "past", False, "Anne habitait", "Anne lived"),
        ("Anne", "habiter", "present", True, "Anne n'habite pas", "Anne does not live"),
        ("ma sœur", "voir", "present", False, "ma sœur voit", "my sister sees"),
        ("il", "attendre", "present", False, "il attend", "he is waiting"),
        (
            "les enfants",
            "préférer",
            "present",
            False,
            "les enfants préfèrent",
            "the children prefer",
        ),
    ],
)
def test_verbs_are_conjugated_as_by_hand(
    person: str, verb: str, tense: str, negative: bool, french: str, english: str
) -> None:
    subject = PEOPLE[person]
    clause = conjugate(VERBS[verb], subject, tense)
    assert sentence(subject, clause, ("", ""), negative) == (french, english)


@pytest.mark.parametrize(
    ("word", "determiner", "plural", "quality", "french", "english"),
    [
        ("livre", "a", False, "red", "un livre rouge", "a red book"),
        ("orange", "a", False, "small", "une petite orange", "a small orange"),
        ("voiture", "a", True, "white", "des voitures blanches", "some white cars"),
        ("voiture", "a", True, "beautiful", "de belles voitures", "some beautiful cars"),
        ("oiseau", "the", False, "beautiful", "le bel oiseau", "the beautiful bird"),
        ("oiseau", "the", True, "beautiful", "les beaux oiseaux", "the beautiful birds"),
        (
            "ordinateur",
            "this",
            False,
            "expensive",
            "cet ordinateur cher",
            "this expensive computer",
        ),
        ("ordinateur", "this", False, "new", "ce nouvel ordinateur", "this new computer"),
        ("écharpe", "my", False, "grey", "mon écharpe grise", "my grey scarf"),
        ("écharpe", "my", False, "old", "ma vieille écharpe", "my old scarf"),
        ("gâteau", "their", True, None, "leurs gâteaux", "their cakes"),
        ("université", "a", False, None, "une université", "a university"),
    ],
)
def test_noun_phrases_agree_as_by_hand(
    word: str, determiner: str, plural: bool, quality: str | None, french: str, english: str
) -> None:
    phrase = noun_phrase(noun(word), determiner, plural, adjective(quality) if quality else None)
    assert (finish_french(phrase.french), phrase.english) == (french, english)


@pytest.mark.parametrize(
    ("word", "plural", "mass", "plain", "negated"),
    [
        ("chat", False, False, ("il a un chat", "he has a cat"),
         ("il n'a pas de chat", "he does not have a cat")),
        ("œuf", True, False, ("il a des œufs", "he has some eggs"),
         ("il n'a pas d'œufs", "he does not have any eggs")),
        ("pain", False, True, ("il a du pain", "he has some bread"),
         ("il n'a pas de pain", "he does not have any bread")),
        ("eau", False, True, ("il a de l'eau", "he has some water"),
         ("il n'a pas d'eau", "he does not have any water")),
    ],
)  # fmt: skip
def test_un_and_du_become_de_under_negation(
    word: str, plural: bool, mass: bool, plain: tuple[str, str], negated: tuple[str, str]
) -> None:
    phrase, he = noun_phrase(noun(word), "a", plural, mass=mass), PEOPLE["il"]
    for negative, expected in ((False, plain), (True, negated)):
        clause = conjugate(words.HAVE, he, "present")
        assert sentence(he, clause, phrase.under(negative), negative) == expected


def test_questions_invert_in_english_alone() -> None:
    he, anne = PEOPLE["il"], PEOPLE["Anne"]
    assert sentence(he, to_be(he, "future"), ("prêt", "ready"), question=True) == (
        "est-ce qu'il sera prêt ?",
        "will he be ready?",
    )
    clause = conjugate(VERBS["lire"], anne, "past")
    assert sentence(anne, clause, ("ce livre", "this book"), question=True) == (
        "est-ce qu'Anne a lu ce livre ?",
        "did Anne read this book?",
    )


def test_finishing_elides_and_contracts() -> None:
    assert finish_french("je  ne ai pas de eau") == "je n'ai pas d'eau"
    assert finish_french("il ne y a pas de école") == "il n'y a pas d'école"
    assert finish_french("ce est à le roi de les enfants") == "c'est au roi des enfants"
    assert finish_french("à le hôtel de le marché") == "à l'hôtel du marché"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, ("deux", "two")),
        (17, ("dix-sept", "seventeen")),
        (20, ("vingt", "twenty")),
        (31, ("trente et un", "thirty-one")),
        (49, ("quarante-neuf", "forty-nine")),
    ],
)
def test_numbers(value: int, expected: tuple[str, str]) -> None:
    assert number(value) == expected


def test_a_count_replaces_the_determiner() -> None:
    phrase = counted_phrase(noun("souris"), 3, adjective("white"))
    assert (phrase.french, phrase.english) == ("trois souris blanches", "three white mice")
