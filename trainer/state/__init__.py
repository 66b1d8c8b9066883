"""What a checkpoint holds besides tensors, and how it is saved and restored."""
