"""CPU time from a typed sentence to all numbers of the explain page, for 1 and 5 million weights.

The page's own scripts run in Node: pieces, greedy translation and every tensor, for sentences of
the phrase book. The networks are untrained, so that each translation has the maximum number of
pieces, 20. The goals are 0.1 and 0.3 s. Drawing is not included.

    .venv/bin/python benchmarks/page_answer.py [--sentences N]
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from model.config.transformer import DecodingConfig, ModelConfig
from model.networks.transformer import Transformer, Vocabulary
from transloom.inference.translator import Translator
from transloom.observe.explain.live.packing import packed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.live_model import MODULES
from support.node_program import answer_of_node, named_modules

FORMS = {
    "1 million": ModelConfig(
        encoder_layers=2, decoder_layers=2, width=128, feed_forward_width=512, heads=4
    ),
    "5 million": ModelConfig(
        encoder_layers=3, decoder_layers=3, width=256, feed_forward_width=768, heads=8
    ),
}
PIECES = 20
# The first sentences warm the compiler, as they do in a browser.
WARM_UP = 5
PROGRAM = """
const fs = require("node:fs");
const [packed, sentences] = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
loadLiveModel(packed).then((model) => {
  const found = sentences.map((sentence) => {
    const before = process.cpuUsage();
    const { ids, chosen } = computeSentence(model, sentence, null, NOTHING_SWITCHED);
    const { user, system } = process.cpuUsage(before);
    return { seconds: (user + system) / 1e6, pieces: [ids.length, chosen.length] };
  });
  fs.writeFileSync(process.argv[3], JSON.stringify(found));
});
"""


def untrained(config: ModelConfig) -> Translator:
    texts = [text for pair in phrasebook_pairs("train")[:2000] for text in pair]
    tokenizer = SentencePieceTokenizer.train(
        texts, TokenizerConfig(type="bpe", vocabulary_size=1000), "phrasebook", []
    )
    size, special = tokenizer.vocabulary_size, tokenizer.special_ids
    torch.manual_seed(0)
    model = Transformer(config, Vocabulary(size, size, special.pad, special.bos, special.eos))
    decoding = DecodingConfig(beam_size=1, max_length_factor=0.0, max_extra_length=PIECES)
    return Translator(model, {SOURCE: tokenizer, TARGET: tokenizer}, decoding, None)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--sentences", type=int, default=50, help="of the phrase book")
    arguments = parse_arguments(parser, smoke="--sentences 1")
    sentences = [source for source, _ in phrasebook_pairs("test")[: arguments.sentences + WARM_UP]]
    for name, config in FORMS.items():
        translator = untrained(config)
        with tempfile.TemporaryDirectory() as folder:
            asked = [packed(translator), sentences]
            found = answer_of_node(named_modules(*MODULES) + PROGRAM, asked, Path(folder))
        seconds = sorted(one["seconds"] for one in found[WARM_UP:])
        weights = sum(weight.numel() for weight in translator.model.parameters())
        pieces = [statistics.mean(one["pieces"][side] for one in found) for side in (0, 1)]
        print(
            f"{name} ({weights:,} weights, {pieces[0]:.0f} pieces to {pieces[1]:.0f}): first "
            f"{found[0]['seconds']:.3f} s, median {statistics.median(seconds):.3f} s, "
            f"slowest of {len(seconds)} {seconds[-1]:.3f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
