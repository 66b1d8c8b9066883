"""Sums whose bits do not depend on their order: `numerics: exact`.

docs/explanation/exactness.md describes the method.

`grids` rounds each slot's gradient so that every sum of gradients is exact. `norm` computes the
norm of the summed gradient from an exact sum of squares. `optimizer` defines the requirements on an
optimizer, and `adamw` implements AdamW under these requirements. `trainer.zero.process_wide`
enables deterministic kernels.
"""
