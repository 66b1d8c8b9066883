"""A Transformer trained by a plain loop over torch.nn.Transformer; no code of transloom is used.

What it reads was written by loss_parity.py: an npz with the micro-batches of all steps as flat ids,
and a JSON file with the settings. It prints the loss of every step: the label-smoothed negative
log-likelihood per target token, in nats.

    python plain_loop.py MICRO_BATCHES SETTINGS
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

Batch = tuple[Tensor, Tensor]  # padded ids of sources and targets, EOS last


class PlainTransformer(nn.Module):
    """Post-norm network; embeddings and output share one matrix (Vaswani et al. 2017)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        width, heads = settings["width"], settings["heads"]
        sizes = (width, heads, settings["feed_forward_width"], settings["dropout"])
        encoder = nn.TransformerEncoderLayer(*sizes, batch_first=True)
        decoder = nn.TransformerDecoderLayer(*sizes, batch_first=True)
        self.transformer = nn.Transformer(
            width,
            heads,
            custom_encoder=nn.TransformerEncoder(
                encoder, settings["encoder_layers"], enable_nested_tensor=False
            ),
            custom_decoder=nn.TransformerDecoder(decoder, settings["decoder_layers"]),
            batch_first=True,
        )
        # the paper has no dropout of attention weights and inner units
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout = nn.Dropout(0.0)
        for parameter in self.transformer.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.embedding = nn.Embedding(settings["vocabulary"], width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.dropout = nn.Dropout(settings["dropout"])
        self.pad, self.bos, self.width = settings["pad"], settings["bos"], width

    def embed(self, ids: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1]).unsqueeze(1)
        angle = position / 10000 ** (torch.arange(0, self.width, 2) / self.width)
        waves = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
        embedded: Tensor = self.dropout(self.embedding(ids) * math.sqrt(self.width) + waves)
        return embedded

    def loss_sum(self, source: Tensor, target: Tensor, smoothing: float) -> Tensor:
        shifted = F.pad(target, (1, -1), value=self.bos)
        length = shifted.shape[1]
        hidden = self.transformer(
            self.embed(source),
            self.embed(shifted),
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=source == self.pad,
            memory_key_padding_mask=source == self.pad,
            tgt_is_causal=True,
        )
        logits = hidden @ self.embedding.weight.T
        return F.cross_entropy(
            logits.flatten(0, 1),
            target.flatten(),
            ignore_index=self.pad,
            reduction="sum",
            label_smoothing=smoothing,
        )


def read_steps(path: str, settings: dict[str, Any]) -> Iterator[list[Batch]]:
    """Yield the padded micro-batches of each step."""
    arrays = np.load(path, allow_pickle=False)
    sides = []
    for side in ("src", "tgt"):
        ids = torch.from_numpy(arrays[f"{side}.ids"])
        sides.append(ids.split(arrays[f"{side}.lengths"].tolist()))
    start, batches = 0, []
    for pairs in arrays["pairs"].tolist():
        rows = [side[start : start + pairs] for side in sides]
        padded = [pad_sequence(r, batch_first=True, padding_value=settings["pad"]) for r in rows]
        batches.append((padded[0], padded[1]))
        start += pairs
        if len(batches) == settings["micro_batches_per_step"]:
            yield batches
            batches = []


def main(micro_batches: str, settings_path: str) -> None:
    settings = json.loads(Path(settings_path).read_text())
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    model = PlainTransformer(settings)
    optimizer = torch.optim.Adam(
        model.parameters(), betas=settings["betas"], eps=settings["epsilon"]
    )
    first, peak, warmup = (settings[k] for k in ("first_rate", "peak_rate", "warmup_steps"))
    for step, batches in enumerate(read_steps(micro_batches, settings), start=1):
        rate = first + (peak - first) * step / warmup
        optimizer.param_groups[0]["lr"] = rate if step < warmup else peak * (warmup / step) ** 0.5
        tokens = sum(int((target != model.pad).sum()) for _, target in batches)
        total = 0.0
        for source, target in batches:
            loss = model.loss_sum(source, target, settings["label_smoothing"]) / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps(total), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
