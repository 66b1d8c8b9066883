"""What a request may ask for, as far as it can be told without a replica."""

from data_pipeline.errors import TokenizerError
from foundation.wording import counted
from transloom.inference.serving.errors import RefusedError
from transloom.inference.serving.facts import ServedRunFacts
from transloom.inference.serving.messages import TranslateRequest
from transloom.inference.serving.settings import Limits


def check_numbers(request: TranslateRequest, most: Limits) -> None:
    """Check how many sentences, translations and prefixes there are.

    Raises:
        RefusedError: too many, or prefixes that are not one for each sentence.
    """
    if len(request.sentences) > most.sentences:
        raise RefusedError(
            413,
            "too_many_sentences",
            f"{counted(len(request.sentences), 'sentence')} in one request, and at most "
            f"{most.sentences:,} are taken: send several requests",
        )
    if request.n_best > most.n_best:
        raise RefusedError(
            400,
            "not_allowed",
            f"n_best is {request.n_best:,}, and at most {most.n_best:,} are given",
        )
    if request.prefixes is not None and len(request.prefixes) != len(request.sentences):
        raise RefusedError(
            400,
            "not_understood",
            f"{counted(len(request.sentences), 'sentence')} and "
            f"{counted(len(request.prefixes), 'prefix')}: "
            'each sentence needs one; "" leaves it free',
        )


def counted_tokens(request: TranslateRequest, facts: ServedRunFacts) -> list[int]:
    """The tokens of each sentence, with tag and EOS.

    Raises:
        RefusedError: the run has no such tag, or a sentence has more than it takes.
    """
    try:
        counts = facts.count_tokens(request.sentences, request.tag)
    except TokenizerError as error:
        raise RefusedError(400, "tag", str(error)) from error
    for position, tokens in enumerate(counts):
        if tokens > facts.longest:
            raise RefusedError(
                413,
                "too_long",
                f"sentence {position + 1} has {tokens:,} tokens, and at most "
                f"{facts.longest:,} are taken: split it",
                position,
            )
    return counts
