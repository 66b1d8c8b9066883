"""Recipe sections about text: settings of corpora, tokenizers and batches."""

from foundation.moved import names_of

__getattr__ = names_of(__name__, "data_pipeline.config.data")
