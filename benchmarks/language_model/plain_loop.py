"""A small GPT, trained in the usual way with torch alone; shares no code with transloom.

    python plain_loop.py SETTINGS STEPS

SETTINGS is a JSON file: `ids` (a .npy with the whole text as one array), the sizes of the network
and of a step, and the optimizer's; STEPS gets a line for each step. Rows begin anywhere in the
text; the whole step is one pass. Pre-norm, learned positions, tied embeddings, as GPT-2 has them
(Radford et al. 2019).
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.support.record import StepRecord


class Block(nn.Module):
    """Block of attention and a feed-forward network, each with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.inner_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected = self.query_key_value(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        inner = F.gelu(self.inner(self.inner_norm(x)), approximate="tanh")
        added: Tensor = x + self.outer(inner)
        return added


class PlainGPT(nn.Module):
    """Network that returns the mean loss of token ids (b, t) and targets of the same shape."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        width = settings["width"]
        self.tokens = nn.Embedding(settings["vocabulary"], width)
        self.positions = nn.Embedding(settings["context"], width)
        self.blocks = nn.Sequential(
            *(Block(width, settings["heads"]) for _ in range(settings["layers"]))
        )
        self.last_norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, settings["vocabulary"], bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        self.logits.weight = self.tokens.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        logits = self.logits(self.last_norm(self.blocks(x)))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def learning_rate(step: int, settings: dict[str, Any]) -> float:
    """Return the factor of linear warm-up and a half-cosine decay (Loshchilov & Hutter 2017)."""
    peak, final, warmup = (settings[k] for k in ("peak_rate", "final_rate", "warmup_steps"))
    if step < warmup:
        return float(peak * step / warmup)
    done = min(1.0, (step - warmup) / (settings["decay_until_step"] - warmup))
    return float(final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_of(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return torch's fused AdamW, without weight decay for vectors."""
    parameters = list(model.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.ndim >= 2],
            "weight_decay": settings["weight_decay"],
        },
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=0.0, betas=settings["betas"], eps=settings["epsilon"], fused=True
    )


def main(settings_path: str, steps: str) -> None:
    settings = json.loads(Path(settings_path).read_text())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(1)
    text = torch.from_numpy(np.load(settings["ids"], allow_pickle=False))
    rows, context = settings["rows"], settings["context"]
    model = PlainGPT(settings)
    optimizer = optimizer_of(model, settings)
    record = StepRecord(Path(steps))
    for step in range(1, settings["steps"] + 1):
        starts = torch.randint(len(text) - context, (rows,)).tolist()
        windows = torch.stack([text[start : start + context + 1] for start in starts]).long()
        loss = model(windows[:, :-1], windows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings["clipping"])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.step()
        optimizer.zero_grad()
        record.step(rows * context)


if __name__ == "__main__":
    main(*sys.argv[1:])
