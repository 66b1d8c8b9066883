"""The rules on the text of documents."""

from data_pipeline.config.text import TextCleaningConfig, TextCorpusConfig
from data_pipeline.corpora.cleaning import EMPTY, Rule, is_empty, score_rules


def text_rules(cleaning: TextCleaningConfig, corpus: TextCorpusConfig) -> list[Rule]:
    """The rules that are wanted, in the order in which they are tried."""
    fewest, most = cleaning.min_characters, cleaning.max_characters
    rules = [Rule(EMPTY, is_empty)]
    if fewest is not None:
        rules.append(Rule("too_few_characters", lambda document: len(document.texts[0]) < fewest))
    if most is not None:
        rules.append(Rule("too_many_characters", lambda document: len(document.texts[0]) > most))
    return rules + score_rules(corpus.min_score)
