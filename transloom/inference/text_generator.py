"""Continuation of texts with a run's language model.

TextGenerator.load("runs/shakespeare").generate(["ROMEO:"])
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from model.config.decoder_only import SamplingConfig
from model.generation.sampling import Ending, Finished, Generated, generate
from model.networks.decoder_only import DecoderOnly
from transloom.inference.batch_size import max_texts_per_batch
from transloom.inference.trained_network import TextReader, TrainedNetwork


@dataclass(frozen=True)
class Continuation:
    """Continuation of a prompt.

    Attributes:
        text: the continuation, without the prompt and without the stop string that ended it.
        log_probability: log-probability of the new tokens in nats, as predicted by the network.
        tokens: number of new tokens.
        ended: see `model.generation.sampling.Generated`.
    """

    prompt: str
    text: str
    log_probability: float
    tokens: int
    ended: Ending


class TextGenerator(TextReader[DecoderOnly]):
    """Trained language model with its tokenizer, ready to continue texts."""

    command = "generate"

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__(trained)
        sampling = trained.recipe.decoding
        assert isinstance(sampling, SamplingConfig)
        self.sampling: SamplingConfig = sampling

    def generate(self, prompts: Sequence[str]) -> list[Continuation]:
        """Generate a continuation of each prompt, with the options in `sampling`.

        A continuation depends only on its prompt, the prompt's index and the seed, not on other
        prompts. If a prompt is longer than the network's context, only its end is read. A network
        with learned positions has a limited number of them. Whenever all positions are used,
        generation restarts with the last tokens, half a context long, as a new prompt.
        """
        continuations: list[Continuation] = []
        ids = [self.read_ids(prompt) for prompt in prompts]
        at_once = max_texts_per_batch(map(len, ids), self.network, self.network.config.heads)
        for start in range(0, len(prompts), at_once):
            part = prompts[start : start + at_once]
            texts = [_Text(start + number, ids[start + number]) for number in range(len(part))]
            while going_on := [text for text in texts if text.ended in (None, "context")]:
                self._continue(going_on)
            continuations += [
                self._continuation(prompt, text) for prompt, text in zip(part, texts, strict=True)
            ]
        return continuations

    def _continue(self, texts: list["_Text"]) -> None:
        """Continue each text for one round: until it ends or all positions are used."""
        most = self.sampling.max_new_tokens
        for left in sorted({most - len(text.ids) for text in texts}):
            alike = [text for text in texts if most - len(text.ids) == left]
            found = generate(
                self.network,
                [text.context(self.network.context_length) for text in alike],
                self.sampling.model_copy(update={"max_new_tokens": left}),
                self.tokenizer.eos_id,
                self._completes(alike) if self.sampling.stop else None,
                [text.number + (text.rounds << 32) for text in alike],
            )
            for text, made in zip(alike, found, strict=True):
                text.take(made)

    def _completes(self, texts: list["_Text"]) -> Finished:
        """Return a function that returns True if a text with new tokens has a stop string."""

        def is_complete(index: int, ids: Sequence[int]) -> bool:
            text = self.tokenizer.decode([[*texts[index].ids, *ids]])[0]
            return any(stop in text for stop in self.sampling.stop)

        return is_complete

    def ids(self, prompt: str) -> list[int]:
        """Return BOS and the ids of all tokens of a prompt, even if they exceed the context."""
        tokens: list[int] = self.tokenizer.encode([prompt])[0].tolist()
        return [self.tokenizer.bos_id, *tokens]

    def read_ids(self, prompt: str) -> list[int]:
        """Return the ids of a prompt, shortened from the start to the network's context."""
        return self.ids(prompt)[-self.network.context_length :]

    def _continuation(self, prompt: str, found: "_Text") -> Continuation:
        text = self.tokenizer.decode([found.ids])[0]
        places = [text.find(stop) for stop in self.sampling.stop if stop in text]
        assert found.ended is not None
        return Continuation(
            prompt=prompt,
            text=text[: min(places)] if places else text,
            log_probability=found.log_probability,
            tokens=len(found.ids),
            ended=found.ended,
        )


@dataclass
class _Text:
    """Prompt and its continuation so far.

    Attributes:
        number: index of the prompt.
        prompt: ids of the prompt.
        ids: ids of the continuation.
        rounds: number of completed rounds; each round starts with a new context.
        ended: reason for the end of the last round, or None before the first one.
    """

    number: int
    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    rounds: int = 0
    ended: Ending | None = None

    def context(self, context_length: int) -> list[int]:
        """Return the ids with which the next round starts."""
        if not self.rounds:
            return self.prompt
        return [*self.prompt, *self.ids][-max(1, context_length // 2) :]

    def take(self, made: Generated) -> None:
        """Add the new tokens of a round."""
        self.ids += made.ids
        self.log_probability += made.log_probability
        self.rounds += 1
        self.ended = made.ended
