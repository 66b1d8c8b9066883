"""Base class of trained networks that read texts with a single tokenizer."""

from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar, cast

from torch import nn

from data_pipeline.tokenizers.tokenizer import shared_tokenizer
from transloom.inference.engine_names import Precision
from transloom.inference.trained_network import TrainedNetwork, load_network

N = TypeVar("N", bound=nn.Module)


class TextReader(Generic[N]):
    """Trained network with its tokenizer.

    Attributes:
        command: subcommand of transloom for the runs that a subclass can load.
        passed_over: reasons why checkpoints that are normally preferred were not loaded.
    """

    command: ClassVar[str]

    def __init__(self, trained: TrainedNetwork) -> None:
        self.network = cast(N, trained.model.eval())
        self.tokenizer = shared_tokenizer(trained.tokenizers)
        self.checkpoint = trained.checkpoint
        self.passed_over = trained.passed_over

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: int | str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load the newest intact weights of a run, or those of one checkpoint.

        Args:
            checkpoint: a step or the name of an average, or None for the newest.
            precision: number format of the weights and the network.

        Raises:
            RunMismatchError: the path has no run, or its run was trained for another task.
            CheckpointError: the run has no such checkpoint, or it is damaged.
        """
        return cls(load_network(Path(run), checkpoint, "cpu", precision).of_command(cls.command))
