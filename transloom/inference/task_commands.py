"""Commands that use a run of each task, for messages; this module has no heavy imports."""

COMMANDS = {
    "translation": "transloom translate",
    "causal_lm": "transloom generate",
    "sentence_embedding": "transloom embed",
    "masked_lm": "transloom fill",
    "text_classification": "transloom classify",
    "token_classification": "transloom classify",
    "tlm": "transloom fill",
}
# Tasks with a page of `transloom explain`.
EXPLAINED_TASKS = ("translation", "causal_lm", "masked_lm", "tlm")
