"""Sentence kinds of the built-in phrase book, one function each.

A function draws words from the tables of words.py and returns a pair (French, English), or None if
the drawn words do not fit together. The function's name is part of the keys from which its
sentences are drawn, so a new name would give other sentences.
"""

from collections.abc import Callable

from phrasebook import words as words
from phrasebook.forms import Noun, Subject
from phrasebook.grammar import (
    Clause,
    Pair,
    bare_noun,
    conjugate,
    finish_french,
    noun_phrase,
    number,
    sentence,
    to_be,
)
from phrasebook.phrases import (
    SPECIFIC,
    TENSES,
    Draw,
    belonging,
    colours_of,
    described,
    goal,
    join,
    object_of,
    place,
    polarity,
    thing,
    when,
)

GOODS = ("thing", "clothes", "animal")


def profession(draw: Draw) -> Pair:
    """Draw a sentence about a profession.

    Elle est avocate. Mes frères ne sont pas de bons médecins.
    """
    quality = draw.pick((None, None, *words.QUALITIES)) if draw.one_in(3) else None
    subject = draw.pick(words.NAMED_ADULTS if quality else words.PRONOUNS + words.NAMED_ADULTS)
    work = draw.pick(words.PROFESSIONS)
    negative, question = polarity(draw)
    clause = to_be(subject, draw.pick(TENSES))
    feminine, many = work.agree(subject.gender, False), work.agree(subject.gender, True)
    noun = Noun(feminine, many, subject.gender, work.english, f"{work.english}s", frozenset())
    phrase = noun_phrase(noun, "a", subject.plural, quality)
    english = bare_noun(noun, True, quality)[1] if subject.plural else phrase.english
    french = phrase.french if quality else bare_noun(noun, subject.plural)[0]
    return sentence(subject, clause, (french, english), negative, question)


def feeling(draw: Draw) -> Pair:
    """Draw a sentence about a feeling.

    Anne est très heureuse. Nous n'étions pas fatigués.
    """
    subject, adjective = draw.pick(words.PEOPLE), draw.pick(words.FEELINGS)
    negative, question = polarity(draw)
    clause = to_be(subject, draw.pick(TENSES))
    return sentence(subject, clause, described(draw, subject, adjective), negative, question)


def action(draw: Draw) -> Pair | None:
    """Draw a sentence with a verb and its object.

    Léa lit un roman. Il n'a pas acheté de pain. Vous lavez votre robe le samedi.
    """
    verb, subject = draw.pick(words.VERBS), draw.pick(words.PEOPLE)
    tense = draw.pick(TENSES[1:] if verb.aspect == "event" else TENSES)
    habit = tense == "present" and verb.aspect == "action" and draw.one_in(2)
    negative, question = polarity(draw)
    what = object_of(draw, verb, negative, specific=habit and negative)
    if what.french == subject.french:
        return None
    rest = join(("", verb.particle), what.under(negative), when(draw, verb, tense, habit))
    return sentence(subject, conjugate(verb, subject, tense, habit), rest, negative, question)


def movement(draw: Draw) -> Pair:
    """Draw a sentence about a movement or a stay.

    Elle est allée au marché. Nous habitons près de la gare. Paul rentrera de Rome demain.
    """
    verb, subject, tense = draw.pick(words.MOVES), draw.pick(words.PEOPLE), draw.pick(TENSES)
    habit = tense == "present" and verb.aspect == "action" and draw.one_in(2)
    negative, question = polarity(draw)
    rest = join(goal(draw, verb), when(draw, verb, tense, habit))
    return sentence(subject, conjugate(verb, subject, tense, habit), rest, negative, question)


def wish(draw: Draw) -> Pair | None:
    """Draw a sentence with a modal verb.

    Je veux acheter un chapeau. Est-ce que nous pouvons aller à la plage ?
    """
    modal, subject = draw.pick(words.MODALS), draw.pick(words.PEOPLE)
    negative, question = polarity(draw)
    verb = draw.pick(words.VERBS + words.MOVES)
    if verb.aspect not in ("action", "event"):
        return None
    if modal.particle:
        clause = conjugate(modal, subject, draw.pick(TENSES[:2]))
    else:
        clause = Clause(modal.present[subject.person], "", modal.english, "")
    if verb in words.MOVES:
        where_to = goal(draw, verb)
    else:
        where_to = join(("", verb.particle), object_of(draw, verb, negative).under(negative))
    infinitive = (verb.infinitive, f"{modal.particle} {verb.english}")
    return sentence(subject, clause, join(infinitive, where_to), negative, question)


def liking(draw: Draw) -> Pair:
    """Draw a sentence about likes and dislikes.

    J'aime les pommes. Victor ne déteste pas le fromage.
    """
    verb, subject = draw.pick(words.LIKES), draw.pick(words.PEOPLE)
    noun = draw.pick(words.nouns_in(*verb.takes))
    counted = not noun.categories & {"food", "drink"}
    in_general = noun_phrase(noun, "the", counted).french, bare_noun(noun, counted)[1]
    negative, question = polarity(draw)
    clause = conjugate(verb, subject, draw.pick(TENSES[:2]))
    return sentence(subject, clause, in_general, negative, question)


def location(draw: Draw) -> Pair:
    """Draw a sentence about the location of a person or thing.

    Le chat noir est sous la table. Marie n'était pas devant l'église.
    """
    if draw.one_in(3):
        subject, landmark = draw.pick(words.PEOPLE), "room"
    else:
        subject = thing(draw, draw.pick(words.nouns_in(*GOODS)), SPECIFIC).subject
        landmark = draw.pick(tuple(words.PREPOSITIONS))
    negative, question = polarity(draw)
    clause = to_be(subject, draw.pick(TENSES))
    return sentence(subject, clause, place(draw, landmark), negative, question)


def there_is(draw: Draw) -> Pair:
    """Draw a sentence with `il y a`.

    Il y a trois souris dans le jardin. Il n'y avait pas de pain sur la table.
    """
    negative, question = polarity(draw)
    noun = draw.pick(words.nouns_in(*GOODS, "fruit", "food", "drink"))
    what = thing(draw, noun, ("a",) if negative else ("a", "number"))
    tense = draw.pick(TENSES)
    it, there = Subject("il", "it", 2, "m"), Subject("il", "there", 4 if what.plural else 2, "m")
    having, being = conjugate(words.HAVE, it, tense), to_be(there, tense)
    clause = Clause(f"y {having.french_finite}", "", being.english_auxiliary, being.english_main)
    rest = join(what.under(negative), place(draw, draw.pick(tuple(words.PREPOSITIONS))))
    return sentence(there, clause, rest, negative, question)


def description(draw: Draw) -> Pair:
    """Draw a sentence that describes a thing.

    Votre manteau est gris. Les chaussures d'Anne étaient trop chères.
    """
    noun = draw.pick(words.nouns_in(*GOODS))
    phrase = belonging(draw, noun) if draw.one_in(2) else thing(draw, noun, SPECIFIC, plain=True)
    subject = phrase.subject
    negative, question = polarity(draw)
    if draw.one_in(3) and "animal" not in noun.categories:
        rest = described(draw, subject, draw.pick(words.CONDITIONS))
    else:
        colour = draw.pick(colours_of(noun))
        rest = colour.agree(subject.gender, subject.plural), colour.english
    return sentence(subject, to_be(subject, draw.pick(TENSES)), rest, negative, question)


def having(draw: Draw) -> Pair:
    """Draw a sentence with `avoir` and its object.

    J'ai deux sœurs. Paul n'avait pas de chapeau rouge.
    """
    negative, question = polarity(draw)
    subject, noun = draw.pick(words.PEOPLE), draw.pick(words.nouns_in(*GOODS, "relative"))
    what = thing(draw, noun, ("a",) if negative else ("a", "number"))
    clause = conjugate(words.HAVE, subject, draw.pick(TENSES))
    return sentence(subject, clause, what.under(negative), negative, question)


def belongs(draw: Draw) -> Pair:
    """Draw a sentence about the owner of a thing.

    C'est la voiture de Paul. Ces clés ne sont pas à moi.
    """
    negative, question = polarity(draw)
    noun, tense = draw.pick(words.nouns_in(*GOODS)), draw.pick(TENSES)
    if draw.one_in(2):
        what = belonging(draw, noun)
        it = Subject("ce", "they" if what.plural else "it", 4 if what.plural else 2, "m")
        return sentence(it, to_be(it, tense), (what.french, what.english), negative, question)
    subject = thing(draw, noun, ("the", "this"), plain=True).subject
    named = tuple((person.french, person.english_possessive) for person in words.OWNERS)
    owner, whose = draw.pick(words.MINE if draw.one_in(2) else named)
    return sentence(subject, to_be(subject, tense), (f"à {owner}", whose), negative, question)


def age(draw: Draw) -> Pair:
    """Draw a sentence about a person's age.

    Marie a vingt et un ans. Les enfants n'ont pas douze ans.
    """
    subject, tense = draw.pick(words.PEOPLE), draw.pick(TENSES)
    youngest = 16 if subject in words.FAMILY else 5
    oldest = 15 if subject in words.CHILDREN else 49
    french, english = number(draw.pick(range(youngest, oldest + 1)))
    negative, question = polarity(draw)
    avoir, be = conjugate(words.HAVE, subject, tense), to_be(subject, tense)
    clause = Clause(avoir.french_finite, "", be.english_auxiliary, be.english_main)
    rest = (f"{french} ans", f"{english} years old")
    return sentence(subject, clause, rest, negative, question)


def comparison(draw: Draw) -> Pair | None:
    """Draw a sentence that compares two people.

    Sophie est plus patiente que mon frère. Omar n'est pas aussi grand que Paul.
    """
    subject, other = draw.pick(words.PEOPLE), draw.pick(words.NAMED)
    adjective = draw.pick(words.COMPARED)
    if subject.french in other.french or other.french in subject.french:
        return None
    longer = words.SHORT_COMPARATIVES.get(adjective.english, f"more {adjective.english}")
    more = ("plus", longer, "than")
    less = ("moins", f"less {adjective.english}", "than")
    degree, english, than = draw.pick((more, less, ("aussi", f"as {adjective.english}", "as")))
    agreed = adjective.agree(subject.gender, subject.plural)
    negative, question = polarity(draw)
    rest = (f"{degree} {agreed} que {other.french}", f"{english} {than} {other.english}")
    return sentence(subject, to_be(subject, draw.pick(TENSES)), rest, negative, question)


def departure(draw: Draw) -> Pair:
    """Draw a sentence about a departure or arrival.

    Le train part à cinq heures. Est-ce que l'avion est arrivé à dix heures hier ?
    """
    if draw.one_in(2):
        subject = draw.pick(words.PEOPLE)
    else:
        vehicle = draw.pick(words.nouns_in("vehicle"))
        subject = noun_phrase(vehicle, draw.pick(("the", "this", "our", "your"))).subject
    verb, tense = draw.pick(words.DEPARTURES), draw.pick(TENSES)
    french, english = number(draw.pick(range(2, 13)))
    negative, question = polarity(draw)
    rest = join((f"à {french} heures", f"at {english} o'clock"), when(draw, verb, tense, False))
    return sentence(subject, conjugate(verb, subject, tense), rest, negative, question)


def whereabouts(draw: Draw) -> Pair:
    """Draw a question about the location of a thing.

    Où sont mes clés ? Où était le chien de Sophie ?
    """
    noun, tense = draw.pick(words.nouns_in(*GOODS)), draw.pick(TENSES)
    phrase = belonging(draw, noun) if draw.one_in(2) else thing(draw, noun, SPECIFIC)
    clause = to_be(phrase.subject, tense)
    french = finish_french(f"où {clause.french_finite} {phrase.french} ?")
    english = f"where {clause.english_auxiliary} {phrase.english} {clause.english_main}"
    return french, f"{english.strip()}?"


def how_many(draw: Draw) -> Pair:
    """Draw a question about a number.

    Combien de chats est-ce que Marie a ?
    """
    noun, owner = draw.pick(words.nouns_in(*GOODS, "relative")), draw.pick(words.PEOPLE)
    clause = conjugate(words.HAVE, owner, draw.pick(TENSES))
    french, english = bare_noun(noun, True)
    asked = sentence(owner, clause, ("", ""), question=True)
    return finish_french(f"combien de {french} {asked[0]}"), f"how many {english} {asked[1]}"


# Number of sentences drawn for each kind; some are drawn twice, and some are held out.
KINDS: tuple[tuple[Callable[[Draw], Pair | None], int], ...] = (
    (profession, 3850),
    (feeling, 2000),
    (action, 6900),
    (movement, 3700),
    (wish, 2500),
    (liking, 1250),
    (location, 2200),
    (there_is, 1500),
    (description, 2500),
    (having, 1500),
    (belongs, 1250),
    (age, 850),
    (comparison, 850),
    (departure, 600),
    (whereabouts, 600),
    (how_many, 400),
)
