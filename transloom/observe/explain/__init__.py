"""Generate a page that follows one sentence through a trained model, with all intermediate numbers.

Translator, sentence ─explanation─▶ trace ─recording─▶ data ─page─▶ one HTML file

The page's modules draw all sections from one trace, in `walk/`: the recorded one, or what the model
in the page computes for a typed sentence (`live/`).
"""
