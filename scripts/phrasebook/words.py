"""Words of the built-in phrase book, as tables.

At import, the tables are parsed into the small classes of forms.py: nouns by category, adjectives,
verbs, subjects, professions and places.

Every French word has exactly one English meaning here, and every English word one French
translation, so that a French sentence has exactly one correct translation. Where the languages
differ, the phrase book makes a choice: `vous` is one man addressed politely (`tu` is omitted), and
`je`, `nous` and `ils` are masculine. `elles`, `son`, `sa` and `ses` (his or her?) are omitted.
"""

from functools import cache

from phrasebook.forms import (
    MASCULINE,
    Adjective,
    Noun,
    Profession,
    Subject,
    Verb,
    parse_adjectives,
    parse_nouns,
    parse_professions,
    parse_subjects,
    parse_verbs,
)

# Categories = nouns; each noun is French, gender, English. `singular:plural` gives a plural that is
# not formed by adding -s.
NOUNS: tuple[Noun, ...] = parse_nouns("""
    thing print = livre m book, journal:journaux m newspaper, lettre f letter
    text = roman m novel, histoire f story:stories, poème m poem, message m message
    thing machine = voiture f car, vélo m bicycle, téléphone m phone, ordinateur m computer
    thing machine = radio f radio, montre f watch:watches, horloge f clock
    thing machine fragile = lampe f lamp
    thing = clé f key, stylo m pen, crayon m pencil, parapluie m umbrella, tapis:tapis m carpet
    thing fragile dish = assiette f plate, verre m glass:glasses, tasse f cup, bouteille f bottle
    thing door container = boîte f box:boxes, valise f suitcase, sac m bag
    door furniture = porte f door, fenêtre f window
    surface furniture = table f table, chaise f chair, lit m bed, armoire f wardrobe
    clothes = chemise f shirt, robe f dress:dresses, jupe f skirt, veste f jacket
    clothes = écharpe f scarf:scarves, chaussure f shoe, gant m glove, manteau:manteaux m coat
    clothes = chapeau:chapeaux m hat
    animal = chat m cat, chien m dog, lapin m rabbit, âne m donkey, vache f cow, poule f hen
    animal = souris:souris f mouse:mice, cheval:chevaux m horse, oiseau:oiseaux m bird
    fruit = pomme f apple, poire f pear, orange f orange, banane f banana
    fruit = tomate f tomato:tomatoes, citron m lemon, œuf m egg, gâteau:gâteaux m cake
    food = pain m bread, fromage m cheese, riz m rice, poisson m fish, beurre m butter
    food = chocolat m chocolate, viande f meat, soupe f soup, salade f salad
    drink = eau f water, lait m milk, café m coffee, thé m tea, jus:jus m juice
    place = marché m market, piscine f swimming_pool, plage f beach:beaches
    place room = musée m museum, cinéma m cinema, restaurant m restaurant, théâtre m theatre
    place room = château:châteaux m castle, parc m park, bureau:bureaux m office
    place room = hôtel m hotel, hôpital:hôpitaux m hospital, aéroport m airport, gare f station
    place room = banque f bank, boulangerie f bakery:bakeries, pharmacie f pharmacy:pharmacies
    place room = bibliothèque f library:libraries, école f school, église f church:churches
    place room = usine f factory:factories, université f university:universities
    room = jardin m garden
    vehicle = train m train, bus:bus m bus:buses, avion m plane, bateau:bateaux m boat
    relative = frère m brother, sœur f sister, oncle m uncle, tante f aunt, cousin m cousin
    relative = voisin m neighbour, ami m friend
    human = enfant m child:children, garçon m boy, homme m man:men, femme f woman:women
""")

# French masculine and feminine singular, English. `before` marks adjectives that precede the noun.
# After `before`, there may be the form for masculine nouns that begin with a vowel (un bel oiseau).
COLOURS: tuple[Adjective, ...] = parse_adjectives("""
    rouge rouge red, vert verte green, bleu bleue blue, noir noire black, blanc blanche white,
    jaune jaune yellow, gris grise grey, brun brune brown, rose rose pink
""")
SIZES = parse_adjectives("""
    petit petite small before, grand grande big before, vieux vieille old before vieil,
    nouveau nouvelle new before nouvel, beau belle beautiful before bel, joli jolie pretty before
""")
AGES = parse_adjectives("""
    petit petite small before, vieux vieille old before vieil, jeune jeune young before,
    beau belle beautiful before bel
""")
CONDITIONS = parse_adjectives("""
    cher chère expensive, lourd lourde heavy, propre propre clean, sale sale dirty,
    ordinaire ordinaire ordinary
""")
CONTENTS = parse_adjectives("""
    long longue long before, beau belle beautiful before bel, nouveau nouvelle new before nouvel,
    triste triste sad, drôle drôle funny, intéressant intéressante interesting
""")
QUALITIES = parse_adjectives("""
    bon bonne good before, mauvais mauvaise bad before, jeune jeune young before,
    excellent excellente excellent before, célèbre célèbre famous, honnête honnête honest
""")
FEELINGS = parse_adjectives("""
    fatigué fatiguée tired, heureux heureuse happy, triste triste sad, malade malade ill,
    occupé occupée busy, poli polie polite, timide timide shy, fier fière proud,
    inquiet inquiète worried, jaloux jalouse jealous, gentil gentille kind,
    sérieux sérieuse serious, calme calme calm, patient patiente patient,
    curieux curieuse curious, faible faible weak
""")
COMPARED = parse_adjectives("""
    grand grande tall, jeune jeune young, vieux vieille old, gentil gentille kind,
    heureux heureuse happy, patient patiente patient, intelligent intelligente intelligent,
    célèbre célèbre famous, curieux curieuse curious
""")
SHORT_COMPARATIVES = {
    "tall": "taller",
    "young": "younger",
    "old": "older",
    "kind": "kinder",
    "happy": "happier",
}

# Infinitive | present of je, vous, il, nous, ils | future stem | past participle (a dash: regular)
# | English base form, its past (none: regular), +preposition | aspect | categories of its objects.
#
# The aspect says how French tenses are translated:
#   action   il lit → he is reading (he reads every day), il a lu → he read
#   event    past and future only: il a trouvé → he found
#   state    il voit → he sees, il a vu → he saw
#   lasting  il habite → he lives, il habitait → he lived
VERBS: tuple[Verb, ...] = parse_verbs("""
    acheter    | achète achetez achète achetons achètent | achèter | - | buy bought  | action | \
thing clothes fruit food drink
    vendre     | - | - | - | sell sold            | action | thing clothes fruit food
    chercher   | - | - | - | look+for             | action | thing clothes animal relative
    trouver    | - | - | - | find found           | event  | thing clothes animal
    perdre     | - | - | - | lose lost            | event  | thing clothes
    voir       | vois voyez voit voyons voient | verr | vu | see saw | state | thing animal place
    dessiner   | - | - | - | draw drew            | action | thing animal
    laver      | - | - | - | wash                 | action | clothes dish
    porter     | - | - | - | wear wore            | action | clothes
    manger     | - | - | - | eat ate              | action | fruit food
    boire      | bois buvez boit buvons boivent | - | bu | drink drank | action | drink
    lire       | lis lisez lit lisons lisent | - | lu | read read | action | print text
    écrire     | écris écrivez écrit écrivons écrivent | - | écrit | write wrote | action | text
    ouvrir     | ouvre ouvrez ouvre ouvrons ouvrent | - | ouvert | open opened | action | door
    fermer     | - | - | - | close                | action | door
    réparer    | - | - | - | repair               | action | machine
    casser     | - | - | - | break broke          | event  | fragile
    nourrir    | nourris nourrissez nourrit nourrissons nourrissent | - | nourri | feed fed | \
action | animal
    prendre    | prends prenez prend prenons prennent | - | pris | take took | action | vehicle
    attendre   | - | - | - | wait+for             | action | vehicle relative worker
    aider      | - | - | - | help                 | action | relative worker human
    inviter    | - | - | - | invite               | action | relative worker
    appeler    | appelle appelez appelle appelons appellent | appeller | - | call | action | \
relative worker
    rencontrer | - | - | - | meet met             | event  | relative worker human
""")
# Verbs that take a place. The last column has the French preposition; `être` marks verbs that form
# the past with être, whose participle agrees with the subject.
MOVES: tuple[Verb, ...] = parse_verbs("""
    aller      | vais allez va allons vont | ir | - | go went+to    | action  | être à
    arriver    | - | - | - | arrive+at                              | action  | être à
    rester     | - | - | - | stay+at                                | action  | être à
    rentrer    | - | - | - | come came+back_from                    | action  | être de
    sortir     | sors sortez sort sortons sortent | - | sorti | come came+out_of | action | être de
    travailler | - | - | - | work+at                                | lasting | à
    habiter    | - | - | - | live+near                              | lasting | près_de
""")
LIKES: tuple[Verb, ...] = parse_verbs("""
    aimer      | - | - | - | like | lasting | fruit food drink animal
    détester   | - | - | - | hate | lasting | fruit food drink animal
    préférer   | préfère préférez préfère préférons préfèrent | - | - | prefer preferred | \
lasting | fruit food drink animal
""")
MODALS: tuple[Verb, ...] = parse_verbs("""
    vouloir | veux voulez veut voulons veulent | voudr | voulu | want+to | lasting | -
    pouvoir | peux pouvez peut pouvons peuvent | pourr | pu    | can     | lasting | -
    devoir  | dois devez doit devons doivent   | devr  | dû    | must    | lasting | -
""")
DEPARTURES: tuple[Verb, ...] = parse_verbs("""
    partir  | pars partez part partons partent | - | parti | leave left | state | être
    arriver | - | - | - | arrive                                        | state | être
""")
HAVE = parse_verbs("avoir | ai avez a avons ont | aur | eu | have had | lasting | -")[0]

# French masculine and feminine, English. All form their plurals regularly.
PROFESSIONS: tuple[Profession, ...] = parse_professions("""
    étudiant étudiante student           médecin médecin doctor
    professeur professeure teacher       avocat avocate lawyer
    infirmier infirmière nurse           boulanger boulangère baker
    acteur actrice actor                 ingénieur ingénieure engineer
    musicien musicienne musician         coiffeur coiffeuse hairdresser
    journaliste journaliste journalist   dentiste dentiste dentist
    architecte architecte architect      artiste artiste artist
    pilote pilote pilot                  chanteur chanteuse singer
    danseur danseuse dancer              écrivain écrivaine writer
    cuisinier cuisinière cook            agriculteur agricultrice farmer
    mécanicien mécanicienne mechanic     pharmacien pharmacienne pharmacist
    traducteur traductrice translator    juge juge judge
""")

# French, English, person (0 je, 1 vous, 2 il, 3 nous, 4 ils), gender.
PRONOUNS: tuple[Subject, ...] = parse_subjects("""
    je|I|0|m   vous|you|1|m   il|he|2|m   elle|she|2|f   nous|we|3|m   ils|they|4|m
""")
NAMES: tuple[Subject, ...] = parse_subjects("""
    Marie|Marie|2|f   Paul|Paul|2|m     Sophie|Sophie|2|f   Omar|Omar|2|m
    Anne|Anne|2|f     Pierre|Pierre|2|m Léa|Léa|2|f         Victor|Victor|2|m
""")
FAMILY: tuple[Subject, ...] = parse_subjects("""
    mon_père|my_father|2|m       ma_mère|my_mother|2|f       mon_frère|my_brother|2|m
    ma_sœur|my_sister|2|f        votre_oncle|your_uncle|2|m  notre_tante|our_aunt|2|f
    leur_voisin|their_neighbour|2|m  mes_frères|my_brothers|4|m  vos_sœurs|your_sisters|4|f
    l'homme|the_man|2|m          les_femmes|the_women|4|f
""")
COUPLES: tuple[Subject, ...] = parse_subjects("""
    Paul_et_Marie|Paul_and_Marie|4|m     Anne_et_Sophie|Anne_and_Sophie|4|f
""")
CHILDREN: tuple[Subject, ...] = parse_subjects("""
    les_enfants|the_children|4|m   le_garçon|the_boy|2|m
""")
OWNERS = NAMES + FAMILY + CHILDREN
NAMED_ADULTS = NAMES + FAMILY + COUPLES
NAMED = NAMED_ADULTS + CHILDREN
PEOPLE = PRONOUNS * 3 + NAMED  # more pronouns, because only they show all forms of a verb

# Expressions of time: by tense, and for habits in the present.
TIMES = {
    "present": (("maintenant", "now"), ("aujourd'hui", "today")),
    "past": (("hier", "yesterday"), ("ce matin", "this morning"), ("lundi dernier", "last Monday")),
    "future": (
        ("demain", "tomorrow"),
        ("ce soir", "this evening"),
        ("lundi prochain", "next Monday"),
    ),
    "habit": (
        ("chaque jour", "every day"),
        ("chaque semaine", "every week"),
        ("le lundi", "on Mondays"),
        ("le samedi", "on Saturdays"),
    ),
}
# Prepositions that suit each kind of landmark.
NEARBY = (
    ("devant", "in front of"),
    ("derrière", "behind"),
    ("près de", "near"),
    ("à côté de", "next to"),
)
PREPOSITIONS = {
    "surface": (("sur", "on"), ("sous", "under"), *NEARBY),
    "container": (("dans", "in"), *NEARBY),
    "room": (("dans", "in"), *NEARBY),
}
MINE = (
    ("moi", "mine"),
    ("vous", "yours"),
    ("lui", "his"),
    ("elle", "hers"),
    ("nous", "ours"),
    ("eux", "theirs"),
)
CITIES = {
    "Paris": "Paris",
    "Lyon": "Lyon",
    "Rome": "Rome",
    "Berlin": "Berlin",
    "Londres": "London",
    "Genève": "Geneva",
    "Bruxelles": "Brussels",
    "Lisbonne": "Lisbon",
    "Athènes": "Athens",
}


@cache
def nouns_in(*categories: str) -> tuple[Noun, ...]:
    """Return the nouns of any of the categories, in table order; `worker` includes professions."""
    workers = tuple(
        Noun(
            p.masculine,
            f"{p.masculine}s",
            MASCULINE,
            p.english,
            f"{p.english}s",
            frozenset(["worker"]),
        )
        for p in PROFESSIONS
        if "worker" in categories
    )
    return tuple(n for n in NOUNS if not set(categories).isdisjoint(n.categories)) + workers
