"""Export of a translation model in Hugging Face's MarianMT format, with a model card."""

from pathlib import Path
from typing import Any

from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from model.config.transformer import DecodingConfig
from model.hugging_face.files import write_json, write_model
from model.hugging_face.marian import ARCHITECTURE, MAX_POSITIONS, to_marian
from model.networks.transformer import Transformer
from transloom.inference.export.marian_tokenizer import tokenizer_files
from transloom.inference.export.model_card import CARD_FILE, model_card
from transloom.inference.trained_network import TrainedNetwork, exported_network

GENERATION_FILE = "generation_config.json"


def write_marian(trained: TrainedNetwork, folder: Path) -> str:
    """Write the model, its tokenizers and a model card, and return the architecture's name.

    Raises:
        ModelError: Marian does not support the network; the message names the setting.
        TrainerError: MarianTokenizer does not support the kind of a tokenizer.
    """
    network = exported_network(trained, Transformer, "transformer", "Marian's format")
    data, decoding = trained.recipe.data, trained.recipe.decoding
    assert isinstance(data, PairDataConfig)
    assert isinstance(decoding, DecodingConfig)
    positions = max_positions(data, decoding)
    files = tokenizer_files(
        trained.tokenizers,
        tags=sorted({tag for corpus in data.corpora.values() for tag in corpus.tags.values()}),
        languages={SOURCE: data.source_language, TARGET: data.target_language},
        max_length=positions,
    )
    write_model(folder, to_marian(network, positions))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / GENERATION_FILE, generation_config(network, decoding, positions))
    (folder / CARD_FILE).write_text(model_card(trained, folder, positions), encoding="utf-8")
    return ARCHITECTURE


def max_positions(data: PairDataConfig, decoding: DecodingConfig) -> int:
    """Return the number of positions for the run's longest sources and their translations.

    A translation of n tokens needs n + 1 positions, because BOS precedes it. The result is at least
    MAX_POSITIONS.
    """
    longest = int(decoding.max_length_factor * data.max_source_length)
    return max(MAX_POSITIONS, data.max_source_length, longest + decoding.max_extra_length + 1)


def generation_config(
    network: Transformer, decoding: DecodingConfig, positions: int
) -> dict[str, Any]:
    """Return the settings of transformers' `generate` that are closest to our search.

    The length penalty of `generate` divides log-probabilities by length^α; ours divides by ((5 +
    length) / 6)^α. With α = 0 both divisors are 1, so hypotheses have the same scores in both,
    except at the length limit. There, `generate` forces EOS and counts it as certain, whereas our
    search counts the log-probability of EOS.
    """
    vocabulary = network.vocabulary
    return {
        "bos_token_id": None if vocabulary.starts_with_padding else vocabulary.bos_id,
        "decoder_start_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "forced_eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "suppress_tokens": sorted({vocabulary.pad_id, vocabulary.bos_id}),
        "max_length": positions,
        "num_beams": decoding.beam_size,
        "length_penalty": decoding.length_penalty,
        "early_stopping": True,
    }
