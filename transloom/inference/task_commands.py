"""Map each task to the command that uses its trained runs; this module has no heavy imports."""

COMMANDS = {
    "translation": "transloom translate",
    "causal_lm": "transloom generate",
    "sentence_embedding": "transloom embed",
    "masked_lm": "transloom fill",
    "text_classification": "transloom classify",
    "token_classification": "transloom classify",
    "tlm": "transloom fill",
}
# Tasks for which `transloom explain` can write a page.
EXPLAINED_TASKS = ("translation", "causal_lm", "masked_lm", "tlm")
