"""Compare two models on one sentence; figures of both models have the same scale.

    two translators ──comparison──▶ numbers of both ──section──▶ a section of the page

If the page contains both models, `page/comparing.js` computes the same numbers for other sentences.
`page/side_by_side.js` shows the numbers from either source.
"""
