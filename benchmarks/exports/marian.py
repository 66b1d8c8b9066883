"""Compare a run with its export in the transformers library, on all lines of a file.

    python benchmarks/exports/marian.py RUN FOLDER SOURCES [--lines N] [--beam 5]

FOLDER was written by `transloom export RUN FOLDER`; SOURCES is a file with a sentence per line.
Compared are the ids of every line, the logits of every line's greedy translation, greedy
translations, and the best hypotheses of a beam without length penalty, where both scores are
log-probabilities. A beam's hypotheses that differ are shown with both scores; they must be ties.
Both limits are those of the run. Lines of equal length are a batch: `generate` has one limit.
"""

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, MarianMTModel

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from model.config.transformer import DecodingConfig
from model.generation.search import Hypothesis, beam_search, greedy_search
from transloom.inference.translator import Translator

BATCH = 64
TIE = 1e-4  # nats
LOGITS = 1e-5  # relative to the largest logit

# Strings that are difficult for tokenizers; none begins with >>…<<, which MarianTokenizer removes.
NASTY = (
    "", " ", "  two  spaces ", "\t\n", "</s>", "<pad> <s> <unk>", "a</s>b", "▁ ▁▁", "<0x41>",
    "<<>>", ">> not a code", "İstanbul ﬁne ½ ①", "e\u0301 \u00e9", "\u200b\ufeff", "漢字かな🙂",
    "«», “”, ’", "x" * 300, "don't — can't…", "\u00a0nbsp\u00a0", "&amp; <b>", "AAA\u0000b",
)  # fmt: skip


def main() -> None:
    options = _options()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    ours = Translator.load(options.run, options.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(options.folder)
    theirs = MarianMTModel.from_pretrained(options.folder).eval()
    lines = options.sources.read_text(encoding="utf-8").splitlines()[: options.lines]
    report = {
        "lines": len(lines),
        **_same_ids(ours, tokenizer, [*lines, *NASTY]),
        **_same_translations(ours, theirs, lines, options.beam),
    }
    print(json.dumps(report, indent=1, ensure_ascii=False))


def _options() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--lines", type=int)
    parser.add_argument("--beam", type=int, default=5)
    return parse_arguments(parser, smoke="{run} {export} {corpus}/train.en --lines 3")


def _same_ids(ours: Translator, tokenizer: Any, lines: list[str]) -> dict[str, Any]:
    differing = [line for line in lines if tokenizer(line)["input_ids"] != ours.source_ids(line)]
    return {"ids_compared": len(lines), "ids_differ": differing}


def _same_translations(
    ours: Translator, theirs: MarianMTModel, lines: list[str], beam: int
) -> dict[str, Any]:
    found: dict[str, Any] = {"greedy_differ": 0, "beam_differ": [], "at_a_limit": 0}
    worst = 0.0
    for source, limit in _batches(ours, lines):
        mine = greedy_search(ours.model, source, ours.decoding)
        other = _generated(ours, theirs, source, limit, num_beams=1)
        found["greedy_differ"] += sum(
            list(own.ids) != ids for own, (ids, _) in zip(mine, other, strict=True)
        )
        worst = max(worst, _difference_of_logits(ours, theirs, source, mine))

        decoding = DecodingConfig(
            **ours.decoding.model_dump() | {"beam_size": beam, "length_penalty": 0.0}
        )
        best = [hypotheses[0] for hypotheses in beam_search(ours.model, source, decoding)]
        other = _generated(ours, theirs, source, limit, num_beams=beam, early_stopping=True)
        for own, (ids, score) in zip(best, other, strict=True):
            if max(len(own.ids), len(ids)) == limit - 1:
                found["at_a_limit"] += 1  # only counted, because the scores are not comparable
            elif list(own.ids) != ids:
                found["beam_differ"].append(_told(ours, own, ids, score))
    ties = sum(abs(each["score"] - each["their_score"]) < TIE for each in found["beam_differ"])
    return found | {
        "beam_ties": ties,
        "logits_differ_by": worst,
        "logits_agree": worst < LOGITS,
    }


def _told(ours: Translator, own: Hypothesis, ids: list[int], score: float) -> dict[str, Any]:
    return {
        "transloom": ours.target_text(own.ids),
        "score": own.score,
        "transformers": ours.target_text(ids),
        "their_score": score,
    }


def _batches(ours: Translator, lines: list[str]) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield batches of sources of one length, with the maximum tokens of their translations."""
    by_length: dict[int, list[list[int]]] = defaultdict(list)
    for line in lines:
        ids = ours.source_ids(line)
        by_length[len(ids)].append(ids)
    decoding = ours.decoding
    for length, rows in sorted(by_length.items()):
        limit = int(decoding.max_length_factor * length) + decoding.max_extra_length
        for start in range(0, len(rows), BATCH):
            yield torch.tensor(rows[start : start + BATCH]), limit


@torch.no_grad()
def _generated(
    ours: Translator, theirs: MarianMTModel, source: torch.Tensor, limit: int, **settings: Any
) -> list[tuple[list[int], float]]:
    """Return the tokens of each translation without BOS and EOS; after a search, also its score."""
    made = theirs.generate(
        source,
        attention_mask=torch.ones_like(source),
        max_length=limit + 1,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=settings["num_beams"] > 1,
        **settings,
    )
    eos = ours.model.vocabulary.eos_id
    rows = [row[1:] for row in made.sequences.tolist()]
    ids = [row[: row.index(eos)] if eos in row else row for row in rows]
    scores = made.sequences_scores.tolist() if settings["num_beams"] > 1 else [0.0] * len(ids)
    return list(zip(ids, scores, strict=True))


@torch.no_grad()
def _difference_of_logits(
    ours: Translator, theirs: MarianMTModel, source: torch.Tensor, mine: list[Hypothesis]
) -> float:
    """Return the largest difference of logits along our translations, divided by the largest."""
    vocabulary = ours.model.vocabulary
    longest = max(len(own.ids) for own in mine)
    rows = [
        [vocabulary.bos_id, *own.ids, *[vocabulary.pad_id] * (longest - len(own.ids))]
        for own in mine
    ]
    target_input = torch.tensor(rows)
    here = ours.model.logits(ours.model.decode(target_input, ours.model.encode(source), source))
    there = theirs(
        input_ids=source,
        attention_mask=torch.ones_like(source),
        decoder_input_ids=target_input,
    ).logits
    real = torch.arange(longest + 1) <= torch.tensor([[len(own.ids)] for own in mine])
    return float((here - there)[real].abs().max() / there[real].abs().max())


if __name__ == "__main__":
    main()
