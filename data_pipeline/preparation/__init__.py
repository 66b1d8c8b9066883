"""Preparation of a dataset from corpora, before training."""
