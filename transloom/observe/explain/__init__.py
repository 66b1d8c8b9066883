"""A page that takes one sentence through a trained model, number by number.

Translator, sentence ─explanation─▶ trace ─sections─▶ texts and heat maps ─page─▶ one HTML file
"""
