"""Sums whose bits do not depend on their order (`numerics: exact`), see docs/exactness.md.

`grids` rounds each slot's gradient so that every sum of gradients is exact. `norm` computes the
norm of that sum from an exact sum of squares. `optimizer` defines the requirements on an update,
`adamw` implements the update of AdamW. `trainer.zero.process_wide` requires deterministic kernels.
"""
