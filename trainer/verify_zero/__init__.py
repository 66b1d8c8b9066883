"""Check that the installed DeepSpeed computes the right gradients: `transloom verify-zero`.

    recipe ──▶ steps in plain torch, on one process ──▶ digests of all weights after each step
           └─▶ the same steps under DeepSpeed, in each cell of a grid ──▶ the same digests?

With exact sums (docs/explanation/exactness.md) the weights have the same bits on any number of
ranks, in any ZeRO stage, with any sizes of buckets. So a difference is an error, and not rounding.

`zero_grid` lists the cells, `passes` has what both sides compute, `reference` the plain side,
`zero_cell` the side of DeepSpeed, which uses only its public functions, and `session` starts the
processes.
"""
