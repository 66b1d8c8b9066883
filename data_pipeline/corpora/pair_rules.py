"""The rules on the text of pairs of sentences."""

from data_pipeline.config.pair import PairCleaningConfig, PairCorpusConfig
from data_pipeline.corpora.cleaning import EMPTY, Rule, is_empty, score_rules
from data_pipeline.corpora.formats import Example


def pair_rules(cleaning: PairCleaningConfig, corpus: PairCorpusConfig) -> list[Rule]:
    """The rules that are wanted, in the order in which they are tried."""
    rules = [Rule(EMPTY, is_empty)]
    for side, most in enumerate((cleaning.max_source_characters, cleaning.max_target_characters)):
        if most is not None:
            rules.append(_too_many_characters(side, most))
    if cleaning.max_length_ratio is not None:
        rules.append(_uneven(cleaning.max_length_ratio))
    if cleaning.drop_identical:
        rules.append(Rule("identical", lambda pair: pair.texts[0] == pair.texts[1]))
    return rules + score_rules(corpus.min_score)


def _too_many_characters(side: int, most: int) -> Rule:
    reason = ("source_characters", "target_characters")[side]
    return Rule(reason, lambda pair: len(pair.texts[side]) > most)


def _uneven(max_ratio: float) -> Rule:
    def applies(pair: Example) -> bool:
        shorter, longer = sorted(map(len, pair.texts))
        return longer > max_ratio * shorter

    return Rule("length_ratio", applies)
