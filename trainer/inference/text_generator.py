"""Continuing texts with a run: `TextGenerator.load("runs/shakespeare").generate(["ROMEO:"])`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from data_pipeline.text_config import TEXT
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.decoder_only import DecoderOnly
from model.decoder_only_config import SamplingConfig
from model.generation.sampling import Ending, Generated, generate
from trainer.checkpoints.format import Checkpoint
from trainer.inference.trained_network import Precision, load_network

PROMPTS_AT_ONCE = 32


@dataclass(frozen=True)
class Continuation:
    """What comes after a prompt.

    Attributes:
        text: without the prompt, and without the stop string that ended it.
        log_probability: of its tokens, in nats, as the network gives it.
        ended: see `model.generation.sampling.Generated`.
    """

    prompt: str
    text: str
    log_probability: float
    tokens: int
    ended: Ending


class TextGenerator:
    """A trained language model with its tokenizer, ready to continue texts."""

    def __init__(
        self,
        network: DecoderOnly,
        tokenizer: Tokenizer,
        sampling: SamplingConfig,
        checkpoint: Checkpoint,
        damaged: Sequence[str] = (),
    ) -> None:
        """
        Args:
            damaged: what is wrong with newer checkpoints, which were passed over.
        """
        self.network = network.eval()
        self.sampling = sampling
        self.checkpoint = checkpoint
        self.damaged = damaged
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: int | str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load a run's weights: the newest intact ones, or those of one checkpoint.

        Args:
            checkpoint: a step or the name of an average.

        Raises:
            RunMismatchError: there is no run at this path, or it is of another task.
            CheckpointError: the run has no such checkpoint, or it is damaged.
        """
        found = load_network(Path(run), checkpoint, "cpu", precision)
        found = found.of_task("causal_lm", "transloom generate")
        assert isinstance(found.model, DecoderOnly)
        assert isinstance(found.recipe.decoding, SamplingConfig)
        return cls(
            found.model,
            found.tokenizers[TEXT],
            found.recipe.decoding,
            found.checkpoint,
            found.damaged,
        )

    def generate(self, prompts: Sequence[str]) -> list[Continuation]:
        """A continuation of each prompt, under `sampling`.

        It depends on the prompt, its number and the seed alone, not on the other prompts. A prompt
        that is longer than the context is continued from its end.
        """
        continuations = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            part = prompts[start : start + PROMPTS_AT_ONCE]
            ids = [self._ids(prompt) for prompt in part]
            found = generate(
                self.network,
                ids,
                self.sampling,
                self.tokenizer.eos_id,
                self._is_complete if self.sampling.stop else None,
                range(start, start + len(part)),
            )
            continuations += [
                self._continuation(prompt, made) for prompt, made in zip(part, found, strict=True)
            ]
        return continuations

    def _ids(self, prompt: str) -> list[int]:
        tokens: list[int] = self.tokenizer.encode([prompt])[0].tolist()
        return [self.tokenizer.bos_id, *tokens][-self.network.context_length :]

    def _is_complete(self, _: int, ids: Sequence[int]) -> bool:
        text = self.tokenizer.decode([list(ids)])[0]
        return any(stop in text for stop in self.sampling.stop)

    def _continuation(self, prompt: str, made: Generated) -> Continuation:
        text = self.tokenizer.decode([list(made.ids)])[0]
        places = [text.find(stop) for stop in self.sampling.stop if stop in text]
        return Continuation(
            prompt=prompt,
            text=text[: min(places)] if places else text,
            log_probability=made.log_probability,
            tokens=len(made.ids),
            ended=made.ended,
        )
