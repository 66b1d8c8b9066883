"""The file that one rank writes: the fragments it owns, as safetensors."""

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from data_pipeline.dataset.durable import sync_to_disk
from trainer.checkpoints.format import FileRecord, sha256_of
from trainer.errors import CheckpointError
from trainer.fragments import Fragment


def write_state(
    partial: Path, rank: int, world_size: int, fragments: Iterable[Fragment]
) -> FileRecord:
    """Write a rank's fragments to the partial folder of a step, synced to disk.

    Raises:
        CheckpointError: it cannot be written, for example because the disk is full.
    """
    path = partial / f"state-{rank:05d}-of-{world_size:05d}.safetensors"
    tensors = {
        fragment_key(f.kind, f.parameter, f.start): f.tensor.detach().float().cpu().contiguous()
        for f in fragments
    }
    try:
        partial.mkdir(exist_ok=True)
        save_file(tensors, path)
        sync_to_disk(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be written: {error}. The checkpoint before it stands; make room or "
            "mend the permissions, then start the same command again"
        ) from error
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def fragment_key(kind: str, parameter: str, start: int) -> str:
    """The name of a fragment in a state file, e.g. ``master:encoder.layers.0.norm.weight:0``."""
    return f"{kind}:{parameter}:{start}"
