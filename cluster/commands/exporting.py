"""`transloom export`: a run's weights in the layouts of Hugging Face."""

from pathlib import Path
from typing import Any

from data_pipeline.wording import listed
from model.hugging_face import save_hugging_face, to_hugging_face
from trainer.errors import TrainerError
from trainer.inference.text_generator import TextGenerator

TOKENIZER_FILE = "tokenizer.model"


def export_run(run: Path, folder: Path, checkpoint: str | None) -> dict[str, Any]:
    """Write the model and its tokenizer into a new folder, and return a summary.

    Raises:
        TrainerError: the folder has files.
        ModelError: no layout holds the network; the message names what it cannot hold.
    """
    generator = TextGenerator.load(run, checkpoint)
    if folder.exists() and any(folder.iterdir()):
        raise TrainerError(f"{folder} has files already: name a new folder")
    network, tokenizer = generator.network, generator.tokenizer
    architecture = to_hugging_face(network).config["architectures"][0]
    folder.mkdir(parents=True, exist_ok=True)
    save_hugging_face(
        network,
        folder,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    (folder / TOKENIZER_FILE).write_bytes(tokenizer.model)
    files = sorted(path.name for path in folder.iterdir())
    return {
        "folder": str(folder),
        "model": architecture,
        "checkpoint": generator.checkpoint.path.name,
        "files": listed(files),
    }
