"""Damage checkpoints."""

from pathlib import Path


def spoil(checkpoint: Path) -> Path:
    """Change a byte of a checkpoint's tensors; return the file."""
    file = next(checkpoint.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return file
