"""Heads of an encoder: labels, masked tokens, sentence vectors."""
