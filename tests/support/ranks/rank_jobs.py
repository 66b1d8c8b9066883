"""Jobs of ranks for tests that need only a part of a job."""

from pathlib import Path
from typing import Any

from data_pipeline.batching.plan import Cursor
from data_pipeline.dataset.manifest_header import ManifestHeader
from trainer.job.rank_job import RankJob
from trainer.recipe import TrainingRecipe

IDENTITY = "of the dataset"


def make_job(recipe: TrainingRecipe, run: Path, **values: Any) -> RankJob:
    """Return the job of a run at step 0, whose manifest is empty."""
    manifest = ManifestHeader.model_construct(
        fields=(), tokenizers={}, corpora=(), lengths={}, heldout={}, preparation={}
    )
    manifest._identity = IDENTITY
    others: dict[str, Any] = {
        "manifest": manifest,
        "checkpoint": None,
        "cursor": Cursor(),
        "work": run / "work",
        "attempt": "a",
        "session_started": 0.0,
    }
    return RankJob(recipe, run, **others | values)
