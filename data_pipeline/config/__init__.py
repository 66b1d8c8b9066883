"""Recipe sections about text: settings of corpora, tokenizers and batches."""
