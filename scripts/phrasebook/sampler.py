"""Generator of the built-in French–English phrase book.

  1. Each sentence kind in sentences.py draws its sentences from keys ("action/17"). The phrase book
     never changes, because it depends on no random module, set order or platform.
  2. Sentences with a combination of words listed by `withheld_combinations` are kept out of the
     training set.
  3. A hash of the French sentence orders all other sentences and assigns them to the sets.

No sentence of either language is in two sets, and each sentence has one translation in the whole
phrase book.

Half of the test set are sentences whose combinations of words occur in other sentences of the
training set. The other half are sentences with a withheld combination: for example, Marie never
occurs with `pilote` in training, while other people do.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache

from phrasebook import words as words
from phrasebook.forms import Verb
from phrasebook.grammar import Pair
from phrasebook.phrases import Draw
from phrasebook.sentences import KINDS

VALIDATION_PAIRS = 500
TEST_PAIRS_SEEN_COMBINATIONS = 520
TEST_PAIRS_PER_WITHHELD_KIND = 160  # for each of three kinds of combinations
TRAINED_ALWAYS: tuple[Pair, ...] = (("je suis étudiant", "I am a student"),)

# Verbs and tenses that never occur with `ne … pas` in training.
WITHHELD_NEGATIONS = {
    "acheter": "future",
    "vendre": "present",
    "manger": "past",
    "lire": "future",
    "fermer": "past",
    "ouvrir": "future",
    "attendre": "present",
    "réparer": "past",
    "boire": "present",
    "aller": "past",
    "rentrer": "future",
    "travailler": "past",
}


@dataclass(frozen=True)
class Withheld:
    """Two sets of words: no training sentence has a word of `first` and a word of `second`."""

    kind: str
    first: frozenset[str]
    second: frozenset[str]


def book_text() -> str:
    """Return the lines of the phrase book's file: split, French and English, separated by tabs."""
    return "\n".join(
        f"{split}\t{french}\t{english}"
        for split, pairs in _book().items()
        for french, english in pairs
    )


@cache
def withheld_combinations() -> tuple[Withheld, ...]:
    """Return the combinations of words that never occur in training sentences.

    They are of three kinds: person × profession, thing × colour, and verb × tense × negation. For
    the first two, combinations along diagonals of the table are withheld, so that each word still
    occurs in training with most of the others.
    """
    adults = words.PRONOUNS + words.NAMES + words.FAMILY
    people = [(adult.french.split("'")[-1].split()[-1], "") for adult in adults]
    people[0] = ("je", "j")
    things = words.nouns_in("thing", "clothes", "animal")
    professions = [
        Withheld("person × profession", frozenset(person) - {""}, profession.forms)
        for i, person in enumerate(people)
        for j, profession in enumerate(words.PROFESSIONS)
        if (i + j) % 8 == 5
    ]
    colours = [
        Withheld("thing × colour", thing.forms, colour.forms)
        for i, thing in enumerate(things)
        for j, colour in enumerate(words.COLOURS)
        if (i + j) % 6 == 4
    ]
    negations = [
        Withheld("verb × tense × negation", verb.forms(tense), frozenset(["pas"]))
        for verb, tense in ((_verb(name), tense) for name, tense in WITHHELD_NEGATIONS.items())
    ]
    return (*professions, *colours, *negations)


def withheld_kind(french: str) -> str:
    """Return the kind of withheld combination in a sentence, or "" if there is none."""
    found = words_of(french)
    for word in sorted(found):
        for withheld in _withheld_by_word().get(word, ()):
            if not found.isdisjoint(withheld.second):
                return withheld.kind
    return ""


def words_of(french: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", french))


def _verb(infinitive: str) -> Verb:
    return next(verb for verb in words.VERBS + words.MOVES if verb.infinitive == infinitive)


@cache
def _withheld_by_word() -> dict[str, list[Withheld]]:
    by_word: dict[str, list[Withheld]] = {}
    for withheld in withheld_combinations():
        for word in withheld.first:
            by_word.setdefault(word, []).append(withheld)
    return by_word


def _position(pair: Pair, salt: str = "") -> bytes:
    return hashlib.blake2b(f"{salt}{pair[0]}".encode(), digest_size=16).digest()


def drawn_pairs() -> list[Pair]:
    """Return all pairs that the sentence kinds draw, with duplicates, in the order of the draws."""
    drawn = (kind(Draw(f"{kind.__name__}/{i}")) for kind, count in KINDS for i in range(count))
    return [*TRAINED_ALWAYS, *(pair for pair in drawn if pair is not None)]


@cache
def _book() -> dict[str, tuple[Pair, ...]]:
    pairs = sorted(set(drawn_pairs()), key=_position)
    seen_combinations: list[Pair] = []
    withheld: dict[str, list[Pair]] = {}
    for pair in pairs:
        kind = withheld_kind(pair[0])
        if kind:
            withheld.setdefault(kind, []).append(pair)
        elif pair not in TRAINED_ALWAYS:
            seen_combinations.append(pair)
    test_end = VALIDATION_PAIRS + TEST_PAIRS_SEEN_COMBINATIONS
    test = seen_combinations[VALIDATION_PAIRS:test_end]
    for kind in sorted(withheld):
        test += withheld[kind][:TEST_PAIRS_PER_WITHHELD_KIND]
    return {
        "train": (*TRAINED_ALWAYS, *seen_combinations[test_end:]),
        "validation": tuple(seen_combinations[:VALIDATION_PAIRS]),
        "test": tuple(sorted(test, key=lambda pair: _position(pair, "test/"))),
    }
