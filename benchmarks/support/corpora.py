"""The corpora of the recipes that benchmarks train: their files, or the phrase book instead."""

PHRASEBOOK = "phrasebook"
_TRAIN, _VALIDATION = ("'builtin:phrasebook/train.{}'", "'builtin:phrasebook/validation.{}'")
_PAIRS = "{{source: {0}, target: {1}}}"
_TEXT = "{{format: text, files: [{0}]}}"
_STREAM = "{{format: text, files: [{0}], documents: file}}"
# By recipe: how it names a corpus, and with which other settings it takes little text and time.
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
    """Return the overrides of a recipe that say where its corpus is.

    Args:
        data: a folder with the corpus's files; None to download them; `phrasebook` for the built-in
            phrase book in their place, which is enough to see a script work.
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
