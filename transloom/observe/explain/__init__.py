"""Generate a page that follows one sentence through a trained model, with all intermediate numbers.

Translator, sentence ─explanation─▶ trace ─sections─▶ texts and heat maps ─page─▶ one HTML file
"""
