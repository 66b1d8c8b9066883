"""Preparation of a dataset from corpora, once."""
