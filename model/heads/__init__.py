"""Heads on an encoder: labels, masked tokens, sentence vectors."""
