"""Run the user's own model in the page: plain JavaScript computes everything that is shown.

    model ─packing─▶ weights, config, tokenizers as JSON ─panel─▶ HTML of the page's live part
    page/: loading ─▶ normaliser, pieces ─▶ tensors, forward ─▶ search ─▶ the figures

The files in page/ are JavaScript modules. They load nothing except the page that contains them.
"""
