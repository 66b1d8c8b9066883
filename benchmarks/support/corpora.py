"""Select the corpus for the recipe of a benchmark: its own files, or the built-in phrasebook."""

PHRASEBOOK = "phrasebook"
_TRAIN, _VALIDATION = ("'builtin:phrasebook/train.{}'", "'builtin:phrasebook/validation.{}'")
_PAIRS = "{{source: {0}, target: {1}}}"
_TEXT = "{{format: text, files: [{0}]}}"
_STREAM = "{{format: text, files: [{0}], documents: file}}"
# By recipe: a corpus in the recipe's format, and overrides for a small corpus and a short run.
_INSTEAD = {
    "multi30k-ende": (
        _PAIRS,
        [
            "data.tests={}",
            "tokenizer.vocabulary_size=1000",
            "decoding={beam_size: 1, max_length_factor: 0.2, max_extra_length: 2}",
        ],
    ),
    "multi30k-masked": (_TEXT, ["tokenizer.vocabulary_size=500"]),
    "shakespeare-char": (_STREAM, []),
}


def corpus_overrides(recipe: str, data: str | None) -> list[str]:
    """Return the overrides of a recipe that specify the location of its corpus.

    Args:
        data: a folder with the corpus's files; None to download the files; `phrasebook` to use the
            built-in phrasebook instead, which is enough to test a script.
    """
    if data is None:
        return []
    if data != PHRASEBOOK:
        return [f"data.mirror={data}"]
    form, others = _INSTEAD[recipe]
    train, validation = (
        form.format(*(name.format(side) for side in ("en", "fr"))) for name in (_TRAIN, _VALIDATION)
    )
    return [f"data.train=[{train}]", f"data.validation={validation}", *others]
