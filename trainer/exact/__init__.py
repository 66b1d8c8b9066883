"""`numerics: exact`: sums whose bits do not depend on their order, see docs/exactness.md.

`grids` rounds each slot's gradient so that every sum of them is exact. `norm` computes the norm of
that sum from an exact sum of squares. `optimizer` is what an update has to promise, `adamw` the
update of AdamW. `kernels` asks torch for deterministic kernels.
"""
