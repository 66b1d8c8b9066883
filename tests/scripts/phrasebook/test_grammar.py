"""The grammar of the phrase book against sentences written by hand."""

import pytest
from phrasebook import words as words
from phrasebook.forms import Adjective, Noun
from phrasebook.grammar import (
    conjugate,
    counted_phrase,
    finish_french,
    noun_phrase,
    number,
    sentence,
    to_be,
)

PEOPLE = {person.french: person for person in words.PEOPLE}
VERBS = {verb.infinitive: verb for verb in (*words.VERBS, *words.MOVES, *words.LIKES)}


def noun(french: str) -> Noun:
    return next(noun for noun in words.NOUNS if noun.french == french)


def adjective(english: str) -> Adjective:
    tables = (words.COLOURS, words.SIZES, words.CONDITIONS, words.QUALITIES, words.FEELINGS)
    return next(
        adjective for table in tables for adjective in table if adjective.english == english
    )


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
