"""Two models beside each other on one sentence, every figure of both on one scale.

    two translators ──comparison──▶ numbers of both ──section──▶ a section of the page

`page/comparing.js` works out the same numbers from two models that lie in the page, and
`page/beside.js` shows them, whoever worked them out.
"""
