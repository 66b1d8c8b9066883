"""Export of a translation model for CTranslate2, with its tokenizers and a model card."""

from collections.abc import Iterable
from pathlib import Path

from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from run_store.errors import RunError
from transloom.inference.ctranslate2.conversion import positions_of, write_model
from transloom.inference.engine_names import ComputeType
from transloom.inference.export.model_card import CARD_FILE, LAST_SECTIONS, model_card
from transloom.inference.trained_network import TrainedNetwork

CARD = (
    """---
library_name: ctranslate2
pipeline_tag: translation
language:
- {source}
- {target}
tags:
- ctranslate2
- translation
---

# {source} → {target}

An encoder–decoder Transformer, trained by transloom and written for CTranslate2: {size}.
Weights of {checkpoint}, after {tokens}.

## Use

```python
import sentencepiece, ctranslate2

source = sentencepiece.SentencePieceProcessor(model_file="FOLDER/source.model")
target = sentencepiece.SentencePieceProcessor(model_file="FOLDER/target.model")
translator = ctranslate2.Translator("FOLDER")
pieces = source.encode("…", out_type=str)
(result,) = translator.translate_batch([pieces], beam_size=4, min_decoding_length=0)
print(target.decode(result.hypotheses[0]))
```

Give text as it is written: cased, and not tokenised. If the model was trained with tags, put the
tag before the other pieces, as a separate one.

## Scores

{scores}

## How it differs from transloom

- CTranslate2 divides a hypothesis' log-probability by length^α, transloom by ((5 + length) / 6)^α,
  so the same α of {alpha:g} favours different lengths.
- transloom ends a translation after {factor:g} × its source's tokens + {extra}, with EOS;
  CTranslate2 truncates it after `max_decoding_length`.
- A source or a translation has at most {positions} tokens. CTranslate2 truncates a source after
  `max_input_length`, by default 1,024.
- Padding and BOS are excluded only by `suppress_sequences`; a trained model does not write them.

"""
    + LAST_SECTIONS
)


def write_ctranslate2(
    trained: TrainedNetwork, folder: Path, quantization: ComputeType | None = None
) -> str:
    """Write the model, its tokenizers and a model card into a folder; return a description.

    Args:
        quantization: type of the stored weights, or None for unchanged fp32.

    Raises:
        ModelError: CTranslate2 does not support the network or a tokenizer; the message says why.
        RunError: a tokenizer rewrites text before its SentencePiece model reads it.
        EngineError: CTranslate2 is not installed.
    """
    require_plain(trained.tokenizers.values())
    positions = positions_of(trained.recipe)
    write_model(trained.model, trained.tokenizers, positions, folder, quantization)
    card = model_card(trained, folder, positions, CARD)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return f"a CTranslate2 model in {quantization or ComputeType.FLOAT32}"


def require_plain(tokenizers: Iterable[Tokenizer]) -> None:
    """Check that the SentencePiece models alone are enough to compute a run's token ids.

    Raises:
        RunError: a tokenizer rewrites text before its SentencePiece model reads it.
    """
    for tokenizer in tokenizers:
        if isinstance(tokenizer, SentencePieceTokenizer) and tokenizer.is_verbatim:
            raise RunError(
                f"{tokenizer.name} was trained with tokenizer.verbatim, which escapes line ends "
                "and some characters before segmentation. A program that has only the "
                "SentencePiece model does not escape them. Translate with --engine ctranslate2, or "
                "export a run with tokenizer.verbatim=false."
            )
