"""Checkpoints: fragments in safetensors, described by one JSON file that is written last.

::

    checkpoints/step-00000500/
      checkpoint.json                     step, cursor, digest, recipe, every file's sha256
      state-00000-of-00002.safetensors    the fragments that rank 0 owned

Writing: every rank writes its file into ``.partial-step-…`` and reports its hash; when all have
reported, `commit` writes checkpoint.json there, syncs, and renames the folder. A folder named
``step-…`` is therefore complete, whenever the power went. Nothing in it can execute code: the
tensors are safetensors, the rest is JSON.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file

from data_pipeline.dataset.durable import sync_to_disk
from trainer.errors import CheckpointError, CheckpointFormatError
from trainer.fragments import Fragment

FORMAT = "transloom-checkpoint/1"
HEADER = "checkpoint.json"


class FileRecord(BaseModel):
    """A file of a checkpoint and what it must contain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^state-\d+-of-\d+\.safetensors$")]
    bytes: int
    sha256: str


class CheckpointHeader(BaseModel):
    """checkpoint.json: all of the state that is not a tensor.

    Randomness needs no state: every generator is seeded from ``(seed, "dropout", step, slot)``,
    and the seed is part of the recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = FORMAT
    step: int
    optimizer_step: int
    cursor: dict[str, int]
    data_digest: str
    dataset_identity: str
    recipe: dict[str, Any]
    identity: dict[str, Any]
    numerics: dict[str, Any]
    parameters: dict[str, list[int]]
    parameter_groups: list[dict[str, Any]]
    validation_loss: float | None
    target_tokens_seen: int
    files: list[FileRecord] = []


class Checkpoint:
    """A complete checkpoint on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = _read_header(path)

    @property
    def step(self) -> int:
        return self.header.step

    def file_paths(self) -> list[Path]:
        return [self.path / record.name for record in self.header.files]

    def verify(self) -> None:
        """Compare every file with the header; raises CheckpointError with both values."""
        for record in self.header.files:
            path = self.path / record.name
            if not path.is_file():
                raise CheckpointError(f"{path} is missing; checkpoint {self.path.name} is damaged")
            size = path.stat().st_size
            if size != record.bytes:
                raise CheckpointError(
                    f"{path} has {size} bytes, checkpoint.json says {record.bytes}: it is damaged"
                )
            found = sha256_of(path)
            if found != record.sha256:
                raise CheckpointError(
                    f"{path} has sha256 {found}, checkpoint.json says {record.sha256}: "
                    "it is damaged"
                )


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
        partial.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)
        sync_to_disk(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be written: {error}. The checkpoint before it stands; make room or "
            "mend the permissions, then start the same command again"
        ) from error
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def commit(partial: Path, header: CheckpointHeader, files: list[FileRecord]) -> Checkpoint:
    """Make the partial folder of a step a complete checkpoint, atomically."""
    complete = header.model_copy(update={"files": sorted(files, key=lambda f: f.name)})
    final = partial.with_name(_name(header.step))
    path = partial / HEADER
    path.write_text(complete.model_dump_json(indent=1) + "\n")
    sync_to_disk(path)
    sync_to_disk(partial)
    partial.rename(final)
    sync_to_disk(partial.parent)
    return Checkpoint(final)


def partial_folder(checkpoints: Path, step: int, attempt: str) -> Path:
    """Where the ranks of one attempt write a step; other attempts write elsewhere."""
    return checkpoints / f".partial-{_name(step)}-{attempt}"


def discard_partial(checkpoints: Path) -> None:
    """Remove what interrupted writes left behind.

    A rank that is about to be killed may still be writing; what it adds is removed next time.
    """
    for folder in checkpoints.glob(".partial-*"):
        shutil.rmtree(folder, ignore_errors=True)


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """The folders of complete checkpoints, oldest first."""
    return sorted(checkpoints.glob("step-*"))


def newest_intact(checkpoints: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint whose files are as written, and what is wrong with newer ones."""
    damaged = {}
    for path in reversed(list_checkpoints(checkpoints)):
        try:
            checkpoint = Checkpoint(path)
            checkpoint.verify()
        except CheckpointError as error:
            damaged[path] = str(error)
        else:
            return checkpoint, damaged
    return None, damaged


def set_aside(damaged: Path) -> Path:
    """Rename a damaged checkpoint, so that it neither counts nor is lost; returns its new path."""
    aside = damaged.with_name(f"damaged-{damaged.name}")
    if aside.exists():
        shutil.rmtree(aside)
    return damaged.rename(aside)


def prune(checkpoints: Path, keep_last: int, keep_best: int) -> list[Path]:
    """Remove all but the newest ``keep_last`` and the ``keep_best`` of lowest validation loss."""
    paths = list_checkpoints(checkpoints)
    losses = {path: _validation_loss(path) for path in paths}
    scored = [path for path in paths if losses[path] is not None]
    best = sorted(scored, key=lambda path: (losses[path], -step_of(path)))[:keep_best]
    removed = [path for path in paths[: -keep_last or None] if path not in best]
    for path in removed:
        # Renamed first, so that no half-removed folder looks complete.
        condemned = path.with_name(f".partial-{path.name}")
        path.rename(condemned)
        shutil.rmtree(condemned)
    return removed


def fragment_key(kind: str, parameter: str, start: int) -> str:
    """The name of a fragment in a state file, e.g. ``master:encoder.layers.0.norm.weight:0``."""
    return f"{kind}:{parameter}:{start}"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _validation_loss(path: Path) -> float | None:
    try:
        return _read_header(path).validation_loss
    except CheckpointError:
        return None


def _read_header(path: Path) -> CheckpointHeader:
    file = path / HEADER
    try:
        values = json.loads(file.read_bytes())
        written_as = values.get("format")
        if written_as == FORMAT:
            return CheckpointHeader.model_validate(values)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise CheckpointError(f"{file} is damaged: {error.errors()[0]['msg']}") from error
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    raise CheckpointFormatError(
        f"{file} has format {written_as!r}, this version reads {FORMAT!r}: use the version that "
        "wrote it"
    )


def _name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step of a complete checkpoint's folder."""
    return int(path.name.removeprefix("step-"))
