"""French and English syntax, to the extent that the built-in phrase book needs it.

The parts of speech of forms.py become pairs (French, English) in three steps:

  1. `noun_phrase` combines determiner, adjective and noun; `number` spells numbers.
  2. `to_be` and `conjugate` choose the verb's form; `sentence` adds subject, negation and question
     in both languages at once.
  3. `finish_french` elides (je ai → j'ai) and contracts (à le → au) over the whole sentence.
"""

import re
from dataclasses import dataclass

from phrasebook.forms import (
    FEMININE,
    VOWELS,
    Adjective,
    Noun,
    Subject,
    Verb,
    starts_with_vowel,
)

Pair = tuple[str, str]

ETRE = {
    "present": ("suis", "êtes", "est", "sommes", "sont"),
    "past": ("étais", "étiez", "était", "étions", "étaient"),
    "future": ("serai", "serez", "sera", "serons", "seront"),
}
BE = {
    "present": ("am", "are", "is", "are", "are"),
    "past": ("was", "were", "was", "were", "were"),
    "future": ("will",) * 5,
}
AVOIR = ("ai", "avez", "a", "avons", "ont")
POSSESSIVES = {
    "my": ("mon", "ma", "mes"),
    "our": ("notre", "notre", "nos"),
    "your": ("votre", "votre", "vos"),
    "their": ("leur", "leur", "leurs"),
}
FRENCH_NUMBERS = """
    deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize
    dix-sept dix-huit dix-neuf
"""
ENGLISH_NUMBERS = """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
"""
SMALL_NUMBERS = dict(
    enumerate(zip(FRENCH_NUMBERS.split(), ENGLISH_NUMBERS.split(), strict=True), start=2)
)
TENS = {2: ("vingt", "twenty"), 3: ("trente", "thirty"), 4: ("quarante", "forty")}


@dataclass(frozen=True)
class Phrase:
    """Noun phrase in both languages.

    Attributes:
        negated: the form after a negation, where `un` and `du` become `de`; None if it is the same.
    """

    french: str
    english: str
    gender: str
    plural: bool
    negated: Pair | None = None

    def under(self, negative: bool) -> Pair:
        return self.negated if negative and self.negated else (self.french, self.english)

    @property
    def subject(self) -> Subject:
        return Subject(self.french, self.english, 4 if self.plural else 2, self.gender)


@dataclass(frozen=True)
class Clause:
    """Conjugated verb, split where negation and questions insert words.

    Attributes:
        english_auxiliary: comes before *not*, or before the subject of a question.
        english_main: comes after *not*, or after the subject of a question.
        english_plain: the form without *do* (reads, read), where English needs *do* only for
            negation and questions; empty otherwise.
    """

    french_finite: str
    french_rest: str
    english_auxiliary: str
    english_main: str
    english_plain: str = ""


def finish_french(text: str) -> str:
    """Elide and contract: `je ai` → `j'ai`, `à le marché` → `au marché`, `de les` → `des`."""
    text = " ".join(text.split())
    text = re.sub(rf"\b(j|n|d|l|qu|c)(?:e|(?<=l)a) (?=[{VOWELS}]|y )", r"\1'", text, flags=re.I)
    for full, short in (("à le", "au"), ("à les", "aux"), ("de le", "du"), ("de les", "des")):
        text = re.sub(rf"(?<!\S){full}(?!\S)", short, text)
    return text


def number(value: int) -> Pair:
    """Return a number from 2 to 49 in words: (vingt et un, twenty-one)."""
    if value in SMALL_NUMBERS:
        return SMALL_NUMBERS[value]
    (french, english), unit = TENS[value // 10], value % 10
    if unit == 0:
        return french, english
    if unit == 1:
        return f"{french} et un", f"{english}-one"
    return f"{french}-{SMALL_NUMBERS[unit][0]}", f"{english}-{SMALL_NUMBERS[unit][1]}"


def english_article(phrase: str) -> str:
    """Prepend a or an, by sound: an apple, an honest man, a university."""
    opens = phrase[0] in "aeiou" and not phrase.startswith("uni")
    return f"{'an' if opens or phrase.startswith('honest') else 'a'} {phrase}"


def french_determiner(name: str, gender: str, plural: bool, mass: bool, next_word: str) -> str:
    """Return the French determiner before `next_word`.

    Args:
        name: the English determiner. For "a", the result is un, une or des; if the noun is
            uncountable, it is du or de la.
        mass: whether the noun is uncountable.
    """
    vowel = starts_with_vowel(next_word)
    if name in POSSESSIVES:
        masculine, feminine, many = POSSESSIVES[name]
        return many if plural else feminine if gender == FEMININE and not vowel else masculine
    if plural:
        return {"the": "les", "this": "ces", "a": "des"}[name]
    if name == "this":
        return "cette" if gender == FEMININE else "cet" if vowel else "ce"
    if name == "a" and not mass:
        return "une" if gender == FEMININE else "un"
    return ("de " if name == "a" else "") + ("la" if gender == FEMININE else "le")


def bare_noun(noun: Noun, plural: bool, adjective: Adjective | None = None) -> Pair:
    """Return noun and adjective without a determiner: (livres rouges, red books)."""
    french = noun.french_plural if plural else noun.french
    english = noun.english_plural if plural else noun.english
    if adjective is None:
        return french, english
    agreed = adjective.agree(noun.gender, plural, french if adjective.before else "")
    french = f"{agreed} {french}" if adjective.before else f"{french} {agreed}"
    return french, f"{adjective.english} {english}"


def noun_phrase(
    noun: Noun,
    determiner: str,
    plural: bool = False,
    adjective: Adjective | None = None,
    mass: bool = False,
) -> Phrase:
    """Combine determiner, adjective and noun.

    Args:
        determiner: a, the, this, my, our, your, their.
        mass: whether the noun is uncountable (du pain).
    """
    french, english = bare_noun(noun, plural, adjective)
    article = french_determiner(determiner, noun.gender, plural, mass, french)
    if determiner != "a":
        determiner = "these" if determiner == "this" and plural else determiner
        return Phrase(f"{article} {french}", f"{determiner} {english}", noun.gender, plural)
    if plural and adjective and adjective.before:
        article = "de"  # de petits livres
    counted = not (plural or mass)
    return Phrase(
        f"{article} {french}",
        english_article(english) if counted else f"some {english}",
        noun.gender,
        plural,
        negated=(f"de {french}", english_article(english) if counted else f"any {english}"),
    )


def counted_phrase(noun: Noun, count: int, adjective: Adjective | None = None) -> Phrase:
    """Return a noun phrase with a count of two or more: (trois livres rouges, three red books)."""
    french, english = bare_noun(noun, True, adjective)
    french_count, english_count = number(count)
    return Phrase(f"{french_count} {french}", f"{english_count} {english}", noun.gender, True)


def to_be(subject: Subject, tense: str) -> Clause:
    main = "be" if tense == "future" else ""
    return Clause(ETRE[tense][subject.person], "", BE[tense][subject.person], main)


def conjugate(verb: Verb, subject: Subject, tense: str, habit: bool = False) -> Clause:
    """Return the verb's form for a subject.

    Args:
        tense: present, past or future.
        habit: whether the present describes a habit.
    """
    person, base = subject.person, verb.english
    if tense == "future":
        return Clause(verb.future(person), "", "will", base)
    if tense == "present":
        if verb.aspect == "action" and not habit:
            return Clause(verb.present[person], "", BE[tense][person], verb.english_ing)
        auxiliary, plain = ("does", verb.english_third) if person == 2 else ("do", base)
        return Clause(verb.present[person], "", auxiliary, base, plain)
    if verb.aspect == "lasting":
        return Clause(verb.imperfect(person), "", "did", base, verb.english_past)
    if verb.auxiliary == "être":
        ending = "e" * (subject.gender == FEMININE) + "s" * subject.plural
        finite, participle = ETRE["present"][person], verb.participle + ending
    else:
        finite, participle = AVOIR[person], verb.participle
    return Clause(finite, participle, "did", base, verb.english_past)


def sentence(
    subject: Subject,
    clause: Clause,
    rest: Pair,
    negative: bool = False,
    question: bool = False,
) -> Pair:
    """Combine subject, verb and rest in both languages, optionally as a negation or a question."""
    assert not (negative and question)
    ne, pas = ("ne", "pas") if negative else ("", "")
    french = f"{subject.french} {ne} {clause.french_finite} {pas} {clause.french_rest} {rest[0]}"
    auxiliary, main = clause.english_auxiliary, clause.english_main
    if question:
        english = f"{auxiliary} {subject.english} {main} {rest[1]}"
        return finish_french(f"est-ce que {french} ?"), f"{' '.join(english.split())}?"
    if negative:
        auxiliary = "cannot" if auxiliary == "can" else f"{auxiliary} not"
    elif clause.english_plain:
        auxiliary, main = "", clause.english_plain
    english = f"{subject.english} {auxiliary} {main} {rest[1]}"
    return finish_french(french), " ".join(english.split())
