"""Job for a `RankPool` that fine-tunes the Marian model in a folder."""

from pathlib import Path
from typing import Any

from model.hugging_face.files import read_model
from model.hugging_face.marian import from_marian
from model.networks.transformer import Transformer
from support.ranks.engine_jobs import Shape, full_weights, make_engine, train_steps
from trainer.process.placement import Placement
from trainer.state.folder_weights import folder_weights
from trainer.zero import fragments


def tune(
    placement: Placement, shape: Shape, folder: Path, frozen: tuple[str, ...], steps: int
) -> Any:
    """Return the weights before the first step, the losses, and the weights after the last step."""
    theirs = from_marian(*read_model(folder))
    model = Transformer(theirs.config, theirs.vocabulary)
    engine = make_engine(placement, shape, model=model, frozen=frozen)
    fragments.load_state(engine, folder_weights(folder, engine).read, 0)
    first = full_weights(engine)
    losses = train_steps(engine, 1, steps)
    found = first, losses, full_weights(engine)
    engine.destroy()
    return found
