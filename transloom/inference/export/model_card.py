"""Model card of an exported translation model: README.md, in Hugging Face's format.

It describes the run, but contains no paths of the machine on which the run was trained.
"""

from pathlib import Path

import sacrebleu

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.config.pair import TARGET, PairCorpusConfig, PairDataConfig
from data_pipeline.corpora.context import SEPARATOR
from foundation.errors import DataError
from foundation.file_model import SMALL
from foundation.strict_yaml import dump_yaml
from foundation.wording import counted
from model.config.transformer import DecodingConfig
from run_store.checkpoints.checkpoint import Checkpoint, sha256_of
from run_store.checkpoints.format import HEADER
from run_store.errors import RunError
from run_store.folder import RunFolder
from transloom.inference.evaluation import dataset_of
from transloom.inference.export.marian_tokenizer import called
from transloom.inference.hypotheses import HypothesesMetadata, find_hypotheses
from transloom.inference.trained_network import TrainedNetwork

CARD_FILE = "README.md"
# Sections of a recipe that the card quotes: they describe the training and contain no path.
SECTIONS = {"seed", "model", "batching", "trainer", "engine", "decoding"}

# Last sections of the model card, the same for every library.
LAST_SECTIONS = """## Training

Corpora: {corpora}. No text of them is in this folder, apart from the pieces of the vocabulary.

```yaml
{recipe}```

## Licence

None is given. The permitted uses of this model depend on the licences of its corpora and on who
trained it: name a licence in the first lines of this file before you publish it.

## Hashes

| file | sha256 |
| --- | --- |
{hashes}
"""

CARD = (
    """---
library_name: transformers
pipeline_tag: translation
language:
- {source}
- {target}
tags:
- marian
- translation
---

# {source} → {target}

An encoder–decoder Transformer, trained by transloom and written as `MarianMTModel`: {size}.
Weights of {checkpoint}, after {tokens}.

## Use

```python
from transformers import AutoTokenizer, MarianMTModel

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = MarianMTModel.from_pretrained("FOLDER").eval()
batch = tokenizer(["…"], padding=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**batch)[0], skip_special_tokens=True))
```

Give text as it is written: cased, and not tokenised.{tags}

## Scores

{scores}

## How it differs from transloom

- Weights and token ids are the same, and so are logits, except for rounding.
- `generate` divides a hypothesis' log-probability by length^α, transloom by ((5 + length) / 6)^α,
  so the same α of {alpha:g} favours different lengths. With `length_penalty=0.0` both search by the
  log-probability alone, and their beams have the same scores.
- transloom ends a translation after {factor:g} × its source's tokens + {extra}; `generate` after
  {positions} tokens of a batch, and a token that this forces adds nothing to its score.
- A source has at most {positions} tokens.
- With `skip_special_tokens=True`, characters that the vocabulary lacks are dropped; transloom
  writes " ⁇ " for them.
- A text that begins with `>>…<<` loses this part: MarianTokenizer takes it for a language code.

"""
    + LAST_SECTIONS
)


def model_card(trained: TrainedNetwork, folder: Path, positions: int, template: str = CARD) -> str:
    """Return the text of the card.

    Args:
        folder: directory of the exported files, which the card lists with their hashes.
        positions: maximum tokens of a source or a target.
        template: text of the card, with the names of values in braces.
    """
    recipe, checkpoint = trained.recipe, trained.checkpoint
    data, decoding = recipe.data, recipe.decoding
    assert isinstance(data, PairDataConfig)
    assert isinstance(decoding, DecodingConfig)
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    hashes[f"the run's {checkpoint.path.name}/{HEADER}"] = sha256_of(checkpoint.path / HEADER)
    hashes["the dataset's manifest.json"] = checkpoint.header.dataset_identity
    settings = recipe.model_dump(mode="json", include=SECTIONS)
    settings["trainer"].pop("init_from")  # it may contain a path
    tags = sorted({called(tag) for corpus in data.train for tag in corpus.tags.values()})
    return template.format(
        source=data.source_language,
        target=data.target_language,
        size=f"{recipe.model}, {counted(parameters, 'weight')}",
        checkpoint=checkpoint.path.name,
        tokens=counted(checkpoint.header.target_tokens_seen, "target token"),
        tags=(f" It may begin with a tag: {', '.join(f'`{tag}`' for tag in tags)}." if tags else "")
        + _on_context(data),
        scores="\n".join(_scores(trained, data)) or "None were computed with these weights.",
        alpha=decoding.length_penalty,
        factor=decoding.max_length_factor,
        extra=counted(decoding.max_extra_length, "token"),
        positions=positions,
        corpora=", ".join(_described(corpus) for corpus in data.train),
        recipe=dump_yaml(settings),
        hashes="\n".join(f"| {name} | `{value}` |" for name, value in hashes.items()),
    )


def _described(corpus: PairCorpusConfig) -> str:
    """Return the names of a corpus' files, without folders, and their hashes as far as known."""
    files = zip(corpus.locations, corpus.sha256s, strict=True)
    return " and ".join(
        str(location).rsplit("/", 1)[-1] + (f" (sha256 {sha256})" if sha256 else "")
        for location, sha256 in files
    )


def _on_context(data: PairDataConfig) -> str:
    if not data.sentences_before:
        return ""
    read = counted(data.sentences_before, "sentence")
    return f" Up to {read} of its document may precede it, each followed by ` {SEPARATOR} `."


def _scores(trained: TrainedNetwork, data: PairDataConfig) -> list[str]:
    """Return a line for each stored score of these weights."""
    lines = [
        f"- validation, greedily: {name} {score.value:.4g}"
        for name, score in trained.checkpoint.header.scores.items()
        if score.value is not None
    ]
    translations = RunFolder(trained.weights.run).translations
    for path in sorted(translations.glob("*.json")):
        try:
            line = _test_score(path, trained.checkpoint, data)
        except (OSError, ValueError, DataError, RunError):
            continue  # not metadata of hypotheses, or the dataset is missing
        if line:
            lines.append(line)
    return lines


def _test_score(path: Path, checkpoint: Checkpoint, data: PairDataConfig) -> str | None:
    """Return a line with the BLEU of stored hypotheses.

    Args:
        path: the metadata of the hypotheses, a JSON file.

    Returns:
        The line, or None if the hypotheses are missing or were made with other weights.
    """
    origin = HypothesesMetadata.from_json(path.read_bytes(), SMALL).origin
    if origin.checkpoint_sha256 != sha256_of(checkpoint.path / HEADER):
        return None
    heldout = load_heldout(*dataset_of(checkpoint, data), origin.test_set)
    found = find_hypotheses(path.parent, origin)
    if found is None:
        return None
    metric = sacrebleu.BLEU()
    score = metric.corpus_score(found.texts, [heldout.texts[TARGET]]).score
    beam, alpha = origin.decoding["beam_size"], origin.decoding["length_penalty"]
    numbers = origin.engine or origin.precision
    return (
        f"- {origin.test_set}, transloom's beam {beam}, α {alpha:g}, {numbers}: BLEU "
        f"{score:.2f} (sacreBLEU {metric.get_signature()})"
    )
