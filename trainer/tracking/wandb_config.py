"""Facts about a run in W&B's config, in addition to its recipe.

    dataset   identity, languages, counts of kept and dropped text of each corpus, held-out sets
    start     ranks, command, code, packages, and the origin of the weights: the checkpoint that
              the ranks resume from, and the parent of the weights of step 0

The facts contain no sentences and no credentials. The URLs of a recipe have no credentials either.
"""

import hashlib
from typing import Any

from data_pipeline.dataset.manifest_header import ManifestHeader
from run_store.checkpoints.checkpoint import Checkpoint, SavedState
from run_store.checkpoints.format import HEADER
from run_store.folder import RunFolder
from run_store.record.run_status import run_status_of
from trainer.process.placement import Placement


def facts_for_wandb(
    run: RunFolder, manifest: ManifestHeader, placement: Placement, checkpoint: SavedState | None
) -> dict[str, Any]:
    """Return the facts about the dataset and the start, as JSON values."""
    parent = run.card().parent
    start = run_status_of(run.path).start
    return {
        "dataset": _dataset(manifest),
        "start": {
            "ranks": placement.world_size,
            "device": placement.device,
            "resumed_from": _origin(checkpoint) if checkpoint else None,
            "parent": parent.model_dump(mode="json") if parent else None,
            **(start.model_dump(mode="json") if start else {}),
        },
    }


def _origin(checkpoint: SavedState) -> dict[str, Any]:
    if not isinstance(checkpoint, Checkpoint):  # a state in the memory of nodes
        return {"step": checkpoint.step, "sha256": None}
    header = (checkpoint.path / HEADER).read_bytes()
    return {"step": checkpoint.step, "sha256": hashlib.sha256(header).hexdigest()}


def _dataset(manifest: ManifestHeader) -> dict[str, Any]:
    return {
        "identity": manifest.identity,
        "origin": manifest.origin,
        "pairs": manifest.pairs,
        "shards": manifest.shard_count,
        "quarantined": sorted(manifest.left_out),
        "fields": {
            field.name: {
                "role": field.role,
                "language": field.language,
                "vocabulary_size": manifest.tokenizers[field.name].vocabulary_size,
                "tokenizer_sha256": manifest.tokenizers[field.name].sha256,
            }
            for field in manifest.fields
        },
        # A dict by name, because W&B shows a dict as columns and a list as one value.
        "cleaning": {
            corpus.name: {"read": corpus.read, "kept": corpus.kept, "dropped": corpus.dropped}
            for corpus in manifest.corpora
        },
        "heldout": {
            name: {"pairs": info.pairs, "sha256": {f: i.sha256 for f, i in info.files.items()}}
            for name, info in manifest.heldout.items()
        },
    }
