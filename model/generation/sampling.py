"""Greedy or sampled continuation of texts, token by token.

    prompts ─▶ prefill once ─▶ [ logits ─▶ choose ─▶ decode one step ] … ─▶ continuations

Temperature 0 takes the most probable token. Otherwise logits are divided by the temperature, and
two filters apply in turn. `top_k` keeps the k most probable tokens (Fan et al. 2018, §5.1). `top_p`
then keeps the smallest set of most probable tokens whose total probability is at least p (Holtzman
et al. 2020, §3.1). A uniform number in [0, 1) selects one of the kept tokens by their cumulative
probabilities.

Each prompt has a random generator on the CPU, seeded by the seed and the prompt's number. So a
continuation does not depend on batch or device, except for rounding. Prompts of a batch may have
different lengths; finished texts leave the batch.

Shape suffixes: b unfinished texts, t length of the longest prompt, v vocabulary, c candidates.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from model.blocks.cache import KeyValueCache
from model.blocks.learned_positions import LearnedPositions
from model.config.decoder_only import SamplingConfig
from model.errors import ModelError
from model.networks.decoder_only import DecoderOnly

Ending = Literal["eos", "stop", "length", "context"]
# Function that returns True if a continuation is complete. Its arguments are the index of the
# prompt in the call of `generate`, and the new tokens.
Finished = Callable[[int, Sequence[int]], bool]


@dataclass(frozen=True)
class Generated:
    """A continuation of a prompt.

    Attributes:
        ids: new tokens, without EOS.
        log_probability: sum over all new tokens, EOS included, in nats, before temperature, top_k
            and top_p are applied.
        ended: reason of the end: EOS (eos), complete according to the caller (stop),
            `max_new_tokens` reached (length), or no positions left (context).
    """

    ids: tuple[int, ...]
    log_probability: float
    ended: Ending


@dataclass
class _Text:
    """A text whose continuation is unfinished."""

    index: int
    prompt_length: int
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    log_probability: float = 0.0

    @property
    def length(self) -> int:
        return self.prompt_length + len(self.ids)


@torch.no_grad()
def generate(
    network: DecoderOnly,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    eos_id: int,
    finished: Finished | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Generated]:
    """Return a continuation of each prompt.

    Args:
        network: must be in evaluation mode.
        prompts: ids, with BOS if the network was trained with it. They form one batch.
        sampling: settings; `stop` is ignored, because it is text, and only ids are known here.
            Check for stop texts in `finished`.
        eos_id: token that ends a text.
        finished: called after each new token except EOS; None to end only at EOS and limits.
        numbers: number of each prompt, from which its random numbers are seeded; None means 0, 1,
            2, …. A caller that continues its prompts in several batches numbers them across the
            batches.

    Raises:
        ModelError: a prompt is empty or longer than the learned positions, or the network returns
            NaN.
    """
    if not prompts:
        return []
    room = _positions(network)
    _check(prompts, room)
    numbers = range(len(prompts)) if numbers is None else numbers
    texts = [
        _Text(index, len(prompt), _generator(sampling.seed, number))
        for index, (prompt, number) in enumerate(zip(prompts, numbers, strict=True))
    ]
    found: dict[int, Generated] = {}
    caches = network.empty_caches()
    hidden_bd = _prefill(network, prompts, caches)
    while True:
        tokens_b = _choose(network.logits(hidden_bd), texts, sampling)
        for text in texts:
            if ending := _ending(text, sampling, eos_id, finished, room):
                ids = text.ids[:-1] if ending == "eos" else text.ids
                found[text.index] = Generated(tuple(ids), text.log_probability, ending)
        going_on = [row for row, text in enumerate(texts) if text.index not in found]
        if not going_on:
            return [found[index] for index in range(len(prompts))]
        if len(going_on) < len(texts):
            texts = [texts[row] for row in going_on]
            rows = torch.tensor(going_on, device=tokens_b.device)
            tokens_b = tokens_b.index_select(0, rows)
            for cache in caches:
                cache.keep(rows)
        places_b = torch.tensor([text.length - 1 for text in texts], device=tokens_b.device)
        longest = max(text.length for text in texts)
        hidden_bd = network.step(tokens_b, places_b, longest, caches)


def _positions(network: DecoderOnly) -> int | None:
    """Return the number of positions of the network, or None if it has no limit."""
    return network.context_length if isinstance(network.positions, LearnedPositions) else None


def _check(prompts: Sequence[Sequence[int]], room: int | None) -> None:
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ModelError(
                f"Prompt {number} of {len(prompts)} has no tokens, but at least 1 is needed. "
                "Begin the prompt with BOS."
            )
        if room is not None and len(prompt) > room:
            raise ModelError(
                f"Prompt {number} of {len(prompts)} has {len(prompt)} tokens, but the network has "
                f"learned positions for {room}. Give a shorter prompt, such as its last {room} "
                "tokens."
            )


def uniform_numbers(seed: int, number: int, count: int) -> list[float]:
    """Return the numbers in [0, 1) that select the first tokens after a prompt.

    Args:
        number: number of the prompt.
    """
    generator = _generator(seed, number)
    return [_uniform(generator).item() for _ in range(count)]


def _uniform(generator: torch.Generator) -> Tensor:
    return torch.rand((), generator=generator, dtype=torch.float64)


def _generator(seed: int, number: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}:prompt:{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _prefill(
    network: DecoderOnly, prompts: Sequence[Sequence[int]], caches: Sequence[KeyValueCache]
) -> Tensor:
    """Return the hidden states (b, d) after the prompts."""
    device = network.output_weight.device
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    padded = [[*prompt, *[network.pad_id] * (longest - len(prompt))] for prompt in prompts]
    prompt_bt = torch.tensor(padded, device=device)
    return network.prefill(prompt_bt, torch.tensor(lengths, device=device), caches)


def _choose(logits_bv: Tensor, texts: Sequence[_Text], sampling: SamplingConfig) -> Tensor:
    """Append a token to each text, and return these tokens (b,)."""
    log_probabilities_bv = logits_bv.log_softmax(dim=1, dtype=torch.float32)
    if sampling.temperature == 0:
        tokens_b = logits_bv.argmax(dim=1)
    else:
        drawn = [_uniform(text.generator) for text in texts]
        tokens_b = draw(logits_bv, sampling, torch.stack(drawn).to(logits_bv.device))
    chosen_b = log_probabilities_bv.gather(1, tokens_b.unsqueeze(1)).squeeze(1)
    # If a row has a NaN, the softmax is NaN in the whole row, including the chosen token.
    for text, token, log_probability in zip(
        texts, tokens_b.tolist(), chosen_b.tolist(), strict=True
    ):
        if log_probability != log_probability:
            raise ModelError(
                f"Prompt {text.index} cannot be continued: the network's probabilities are NaN, "
                "but they must be numbers. Its weights have diverged; use an earlier checkpoint, "
                "and continue training with a lower learning rate."
            )
        text.ids.append(token)
        text.log_probability += log_probability
    return tokens_b


def draw(logits_bv: Tensor, sampling: SamplingConfig, uniform_b: Tensor) -> Tensor:
    """Return the tokens (b,) that the uniform numbers select.

    Args:
        logits_bv: logits of the next tokens.
        sampling: settings with a temperature above 0.
        uniform_b: fp64 numbers in [0, 1).
    """
    v = logits_bv.shape[1]
    if 0 < sampling.top_k < v:
        logits_bc, tokens_bc = logits_bv.topk(sampling.top_k, dim=1)
    else:
        logits_bc, tokens_bc = logits_bv.sort(dim=1, descending=True, stable=True)
    # In fp64, because in lower precision the sum over thousands of rare tokens would differ from 1.
    below_best_bc = logits_bc.double() - logits_bc[:, :1]
    probabilities_bc = torch.softmax(below_best_bc / sampling.temperature, dim=1)
    sums_bc = probabilities_bc.cumsum(dim=1)
    # top_p keeps a token if the sum of the probabilities before the token is below top_p. The first
    # token is always kept.
    nucleus_bc = sums_bc - probabilities_bc < sampling.top_p
    nucleus_bc[:, 0] = True
    last_b1 = nucleus_bc.sum(dim=1, keepdim=True) - 1
    target_b1 = uniform_b.unsqueeze(1) * sums_bc.gather(1, last_b1)
    place_b1 = torch.searchsorted(sums_bc, target_b1, right=True).minimum(last_b1)
    return tokens_bc.gather(1, place_b1).squeeze(1)


def _ending(
    text: _Text,
    sampling: SamplingConfig,
    eos_id: int,
    finished: Finished | None,
    room: int | None,
) -> Ending | None:
    """Return why a text ended with its newest token, or None if it did not end."""
    if text.ids[-1] == eos_id:
        return "eos"
    if finished is not None and finished(text.index, text.ids):
        return "stop"
    if len(text.ids) == sampling.max_new_tokens:
        return "length"
    if room is not None and text.length > room:
        return "context"
    return None
