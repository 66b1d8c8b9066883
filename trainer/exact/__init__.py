"""`numerics: exact`: sums whose bits do not depend on their order, see docs/exactness.md.

`grids` rounds each slot's gradient so that every sum of them is exact. `norm` computes the norm of
that sum from an exact sum of squares. `optimizer` defines the promises of an exact update, and
`adamw` the update of AdamW. `trainer.zero.process_wide` requires deterministic kernels.
"""
