"""Parts that sentences of the built-in phrase book share: things, places, times.

Functions draw words from the tables of words.py with a Draw, whose choices never change. They
return noun phrases and complements in both languages.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from phrasebook import words as words
from phrasebook.forms import Adjective, Noun, Subject, Verb
from phrasebook.grammar import (
    Pair,
    Phrase,
    bare_noun,
    counted_phrase,
    finish_french,
    noun_phrase,
)

T = TypeVar("T")
TENSES = ("present", "past", "future")
OWN = ("my", "our", "your", "their")
SPECIFIC = ("the", "the", "this", *OWN)
COUNTS = range(2, 13)
ANIMAL_COLOURS = tuple(c for c in words.COLOURS if c.english in ("black", "white", "grey", "brown"))


class Draw:
    """Sequence of choices that depends only on a key: the same in every process and version."""

    def __init__(self, key: str) -> None:
        self._entropy = int.from_bytes(hashlib.blake2b(key.encode()).digest(), "little")

    def pick(self, choices: Sequence[T]) -> T:
        self._entropy, index = divmod(self._entropy, len(choices))
        return choices[index]

    def one_in(self, count: int) -> bool:
        return self.pick(range(count)) == 0


def polarity(draw: Draw) -> tuple[bool, bool]:
    """Draw (negative, question): one sentence in three is negative, one in six a question."""
    drawn = draw.pick(("negative", "negative", "question", "plain", "plain", "plain"))
    return drawn == "negative", drawn == "question"


def join(*parts: Pair) -> Pair:
    return " ".join(french for french, _ in parts), " ".join(english for _, english in parts)


def colours_of(noun: Noun) -> tuple[Adjective, ...]:
    if noun.categories & {"thing", "clothes"}:
        return words.COLOURS
    return ANIMAL_COLOURS if "animal" in noun.categories else ()


def thing(draw: Draw, noun: Noun, determiners: Sequence[str], plain: bool = False) -> Phrase:
    """Draw a noun phrase.

    Args:
        determiners: choices; `number` draws a count of two or more.
        plain: whether to omit the adjective.
    """
    determiner = draw.pick(determiners)
    if noun.categories & {"food", "drink"}:
        tasty = draw.pick((None, None, None, *words.QUALITIES[:2]))
        return noun_phrase(noun, "a" if determiner == "number" else determiner, False, tasty, True)
    adjective = None if plain else _adjective(draw, noun)
    if determiner == "number":
        return counted_phrase(noun, draw.pick(COUNTS), adjective)
    return noun_phrase(noun, determiner, draw.one_in(3), adjective)


def _adjective(draw: Draw, noun: Noun) -> Adjective | None:
    if draw.one_in(2):
        return None
    if "text" in noun.categories:
        return draw.pick(words.CONTENTS)
    if noun.categories & {"thing", "clothes"}:
        return draw.pick((*words.COLOURS, *words.SIZES, *words.CONDITIONS))
    if "animal" in noun.categories:
        return draw.pick((*ANIMAL_COLOURS, *words.AGES))
    return draw.pick(words.SIZES[:2]) if "fruit" in noun.categories else None


def object_of(draw: Draw, verb: Verb, negative: bool, specific: bool = False) -> Phrase:
    """Draw an object that the verb takes; `specific` excludes un, du and numbers."""
    noun = draw.pick(words.nouns_in(*verb.takes))
    if "relative" in noun.categories:
        return noun_phrase(noun, draw.pick(OWN), draw.one_in(3))
    if noun.categories & {"human", "worker", "vehicle", "place"}:
        plural = "place" not in noun.categories and draw.one_in(2)
        return noun_phrase(noun, draw.pick(("the", "the", "this")), plural)
    if specific:
        return thing(draw, noun, SPECIFIC)
    counted = () if negative else ("number",)
    return thing(draw, noun, ("a", "a", "a", *SPECIFIC, *counted))


def belonging(draw: Draw, noun: Noun) -> Phrase:
    """Draw a noun phrase with an owner: le chat de mes sœurs, my sisters' cat."""
    owner, plural = draw.pick(words.OWNERS), draw.one_in(3)
    phrase = noun_phrase(noun, "the", plural)
    french = finish_french(f"{phrase.french} de {owner.french}")
    english = f"{owner.english_possessive} {bare_noun(noun, plural)[1]}"
    return Phrase(french, english, noun.gender, plural)


def place(draw: Draw, landmark: str) -> Pair:
    """Draw a location: sur la table, near our school.

    Args:
        landmark: surface, container or room.
    """
    french, english = draw.pick(words.PREPOSITIONS[landmark])
    noun = draw.pick(words.nouns_in(landmark))
    where = noun_phrase(noun, draw.pick(("the", "the", "the", "this", *OWN)))
    return f"{french} {where.french}", f"{english} {where.english}"


def goal(draw: Draw, verb: Verb) -> Pair:
    """Draw the destination or origin of a movement: à la gare.

    Cities take no article and a different English preposition.
    """
    if verb.infinitive != "sortir" and draw.one_in(4):
        french, english = draw.pick(tuple(words.CITIES.items()))
        preposition = verb.particle if verb.infinitive in ("aller", "rentrer") else "in"
        preposition = preposition.replace("out of", "from")
        return f"{'de' if 'de' in verb.takes else 'à'} {french}", f"{preposition} {english}"
    category = "room" if verb.infinitive == "sortir" else "place"
    where = noun_phrase(draw.pick(words.nouns_in(category)), draw.pick(("the", "the", "this")))
    return f"{verb.takes[0]} {where.french}", f"{verb.particle} {where.english}"


def when(draw: Draw, verb: Verb, tense: str, habit: bool) -> Pair:
    """Draw a time that suits the tense, or nothing; a habit always has a frequency."""
    if habit:
        return draw.pick(words.TIMES["habit"])
    if verb.aspect == "lasting" or (tense == "present" and verb.aspect != "action"):
        return "", ""
    return draw.pick((("", ""), ("", ""), *words.TIMES[tense]))


def described(draw: Draw, subject: Subject, adjective: Adjective) -> Pair:
    """Draw an adverb of degree, or none, before an adjective: très contente, very happy."""
    french, english = draw.pick((("", ""), ("", ""), ("très", "very"), ("trop", "too")))
    agreed = adjective.agree(subject.gender, subject.plural)
    return f"{french} {agreed}", f"{english} {adjective.english}"
