"""Parts of speech of the built-in phrase book, and their inflected forms.

Functions `parse_…` read the tables of words.py into Noun, Adjective, Profession, Subject and Verb,
with their French and English forms. grammar.py combines these.

Persons are numbered: je 0, vous 1, il or elle 2, nous 3, ils 4.
"""

from dataclasses import dataclass

MASCULINE, FEMININE = "m", "f"
PLURAL_PERSONS = (3, 4)
VOWELS = "aeiouhàâéèêëîïôûœ"  # every h in the phrase book is mute
REGULAR_PRESENT = {"er": ("e", "ez", "e", "ons", "ent"), "re": ("s", "ez", "", "ons", "ent")}
REGULAR_PARTICIPLE = {"er": "é", "re": "u"}
IMPERFECT = ("ais", "iez", "ait", "ions", "aient")
FUTURE = ("ai", "ez", "a", "ons", "ont")


def starts_with_vowel(word: str) -> bool:
    return word != "" and word[0].lower() in VOWELS


@dataclass(frozen=True)
class Noun:
    french: str
    french_plural: str
    gender: str
    english: str
    english_plural: str
    categories: frozenset[str]

    @property
    def forms(self) -> frozenset[str]:
        """All French forms of this noun."""
        return frozenset((self.french, self.french_plural))


@dataclass(frozen=True)
class Adjective:
    masculine: str
    feminine: str
    english: str
    before: bool = False  # precedes its noun in French
    masculine_before_vowel: str = ""

    def agree(self, gender: str, plural: bool, next_word: str = "") -> str:
        """Return the French form; `next_word` is the following noun, if there is one."""
        if gender == FEMININE:
            return self.feminine + "s" * plural
        if plural:
            ending = "x" if self.masculine.endswith("eau") else "s"
            return self.masculine + ("" if self.masculine[-1] in "sx" else ending)
        if self.masculine_before_vowel and starts_with_vowel(next_word):
            return self.masculine_before_vowel
        return self.masculine

    @property
    def forms(self) -> frozenset[str]:
        """All French forms of this adjective."""
        words = {self.agree(g, p) for g in (MASCULINE, FEMININE) for p in (False, True)}
        return frozenset(words | {self.masculine_before_vowel}) - {""}


@dataclass(frozen=True)
class Profession:
    masculine: str
    feminine: str
    english: str

    def agree(self, gender: str, plural: bool) -> str:
        return (self.feminine if gender == FEMININE else self.masculine) + "s" * plural

    @property
    def forms(self) -> frozenset[str]:
        """All French forms of this profession."""
        words = (self.masculine, self.feminine)
        return frozenset(word + ending for word in words for ending in ("", "s"))


@dataclass(frozen=True)
class Subject:
    french: str
    english: str
    person: int
    gender: str

    @property
    def plural(self) -> bool:
        return self.person in PLURAL_PERSONS

    @property
    def english_possessive(self) -> str:
        """Possessive form: Marie's, the children's, my sisters'."""
        return self.english + ("'" if self.plural and self.english.endswith("s") else "'s")


@dataclass(frozen=True)
class Verb:
    infinitive: str
    present: tuple[str, ...]
    future_stem: str
    participle: str
    english: str
    english_past: str
    particle: str  # look *for*, come *back from*
    aspect: str  # determines the English tenses, see words.py
    auxiliary: str
    takes: tuple[str, ...]

    def imperfect(self, person: int) -> str:
        """Return the imperfect, formed from the stem of nous: nous habitons → il habitait."""
        return self.present[3].removesuffix("ons") + IMPERFECT[person]

    def future(self, person: int) -> str:
        return self.future_stem + FUTURE[person]

    @property
    def english_third(self) -> str:
        if self.english == "have":
            return "has"
        return self.english + ("es" if self.english.endswith(("ch", "sh", "o")) else "s")

    @property
    def english_ing(self) -> str:
        silent = self.english.endswith("e") and not self.english.endswith("ee")
        return (self.english[:-1] if silent else self.english) + "ing"

    def forms(self, tense: str) -> frozenset[str]:
        """Return the French forms of this verb in a tense: present, past or future.

        Forms in the past do not include the auxiliary.
        """
        if tense == "present":
            return frozenset(self.present)
        if tense == "future":
            return frozenset(self.future(person) for person in range(5))
        if self.aspect == "lasting":
            return frozenset(self.imperfect(person) for person in range(5))
        endings = ("", "e", "s", "es") if self.auxiliary == "être" else ("",)
        return frozenset(self.participle + ending for ending in endings)


def parse_nouns(table: str) -> tuple[Noun, ...]:
    rows = (line.split("=") for line in table.strip().splitlines())
    return tuple(
        Noun(*_number_forms(french), gender, *_number_forms(english), frozenset(categories.split()))
        for categories, entries in rows
        for french, gender, english in (entry.split() for entry in entries.split(","))
    )


def parse_adjectives(table: str) -> tuple[Adjective, ...]:
    rows = (entry.split() for entry in table.split(","))
    return tuple(
        Adjective(masculine, feminine, english, "before" in more, "".join(more[1:]))
        for masculine, feminine, english, *more in rows
    )


def parse_professions(table: str) -> tuple[Profession, ...]:
    words = table.split()
    return tuple(Profession(*words[i : i + 3]) for i in range(0, len(words), 3))


def parse_subjects(table: str) -> tuple[Subject, ...]:
    rows = (entry.replace("_", " ").split("|") for entry in table.split())
    return tuple(
        Subject(french, english, int(person), gender) for french, english, person, gender in rows
    )


def parse_verbs(table: str) -> tuple[Verb, ...]:
    return tuple(_parse_verb(line) for line in table.strip().splitlines())


def _number_forms(entry: str) -> tuple[str, str]:
    singular, _, plural = entry.replace("_", " ").partition(":")
    return singular, plural or f"{singular}s"


def _parse_verb(line: str) -> Verb:
    columns = (column.strip() for column in line.split("|"))
    infinitive, present, future_stem, participle, english, aspect, takes = columns
    stem, ending = infinitive[:-2], infinitive[-2:]
    if present == "-":
        mute_e = "e" if stem.endswith("g") else ""  # nous mangeons
        endings = REGULAR_PRESENT[ending]
        forms = [stem + (mute_e if e == "ons" else "") + e for e in endings]
    else:
        forms = present.split()
    words, _, particle = english.partition("+")
    base, *past = words.split()
    taken = [word.replace("_", " ") for word in takes.split()]
    return Verb(
        infinitive=infinitive,
        present=tuple(forms),
        future_stem=infinitive.removesuffix("e") if future_stem == "-" else future_stem,
        participle=stem + REGULAR_PARTICIPLE[ending] if participle == "-" else participle,
        english=base,
        english_past=past[0] if past else base.removesuffix("e") + "ed",
        particle=particle.replace("_", " "),
        aspect=aspect,
        auxiliary="être" if "être" in taken else "avoir",
        takes=tuple(word for word in taken if word not in ("être", "-")),
    )
