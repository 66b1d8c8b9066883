"""Grammar that has generated the built-in phrase book of French and English sentences.

    forms.py       nouns, adjectives, verbs and subjects, with their inflected forms
    grammar.py     phrases and sentences in both languages
    words.py       tables of words
    phrases.py     parts that sentences share: things, places, times
    sentences.py   the kinds of sentences
    sampler.py     the splits, and the combinations of words that are kept out of training
    __main__.py    the command: PYTHONPATH=scripts .venv/bin/python -m phrasebook

The command writes data_pipeline/storage/phrasebook.tsv.bz2. Different sentences would change every
dataset of the phrase book, so a test checks that the grammar makes exactly these.
"""
