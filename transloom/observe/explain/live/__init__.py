"""The user's own model inside the page: plain JavaScript computes what is shown of a sentence.

    Translator ─packing─▶ weights, config, tokenizers as JSON ─panel─▶ HTML of the page's live part
    page/: loading ─▶ normaliser, pieces ─▶ tensors, forward ─▶ search ─▶ the figures

Scripts in page/ are classic scripts without a build step, in the order of `scripts.ENGINE`,
`scripts.ANSWERS` and `scripts.VIEW`. They ask for nothing beyond the file that they stand in.
"""
