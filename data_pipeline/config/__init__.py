"""Settings of corpora, tokenizers and batches: the sections of a recipe about text."""

from foundation.moved import names_of

__getattr__ = names_of(__name__, "data_pipeline.config.data")
