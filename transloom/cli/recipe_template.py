"""Template of the recipe that `transloom init` writes, with a comment on each setting."""

from typing import Any

from foundation.strict_yaml import inline_yaml
from foundation.untrusted_text import visible_line

COMMENT_COLUMN = 40
_COMMENT = "  # "


def fill(template: str, **values: Any) -> "RecipePart":
    """Return a template with its values, and with aligned comments.

    A value that is not a `RecipePart` is quoted in a setting wherever YAML requires it, and its
    control characters are escaped in a comment.
    """
    others = {name: value for name, value in values.items() if not isinstance(value, RecipePart)}
    quoted = values | {name: inline_yaml(value) for name, value in others.items()}
    escaped = values | {name: visible_line(str(value)) for name, value in others.items()}
    lines = []
    for line in template.splitlines():
        if line.startswith("#"):
            lines.append(line.format_map(escaped))
            continue
        setting, mark, comment = line.partition(_COMMENT)
        setting = setting.rstrip().format_map(quoted)
        if mark:
            setting = f"{setting:<{COMMENT_COLUMN}}{_COMMENT}{comment.format_map(escaped)}"
        lines.append(setting)
    return RecipePart("\n".join(lines) + "\n")


class RecipePart(str):
    """Text of a template's result, which is inserted unchanged into another template."""


TEMPLATE = """\
# {source} to {target}: {pairs}. {scale_says}
#
#   transloom prepare {path}
#   transloom plan {path}    memory, disk space and hours, before training
#   transloom train {path}   the same command continues after a stop
#
# `transloom fields SECTION` explains the fields of a section;
# `transloom fields --search WORD` finds fields.{held}

name: {name}
seed: 1  # for data order, initial weights and dropout

data:
  source_language: {source}
  target_language: {target}
  dataset: {dataset}  # folder that `prepare` writes
  train:
    - {train}
  validation: {validation}
  tests: {tests}
  max_source_length: {scale_longest}  # tokens with EOS; longer pairs are dropped and counted
  max_target_length: {scale_longest}
  cleaning: {{drop_duplicates: true, max_length_ratio: 9}}

{tokenizer}
# A step has micro_batches_per_step micro-batches, divided among the ranks, whatever their number.
batching:
  max_tokens_per_micro_batch: {scale_micro_batch}  # of either side; determines the memory
  micro_batches_per_step: {scale_micro_batches}  # also the maximum number of ranks

{model}
trainer:{first_weights}
  max_steps: {scale_steps}  # about {scale_epochs} passes over the corpus
  schedule:
    type: inverse_square_root
    warmup_steps: {scale_warm_up}
    peak_learning_rate: {scale_rate}
  label_smoothing: 0.1
  gradient_clipping: 1.0
  validate_every_steps: {scale_every}
  early_stopping: {{metric: loss, patience: 5}}  # stop when validation stops improving

engine: {{zero_stage: 1, precision: {scale_precision}}}

checkpoints: {{every_steps: {scale_every}, keep_last: 3}}

decoding: {{beam_size: 4, length_penalty: 0.6}}

cluster:
  address: null  # null starts Ray here; HOST:PORT uses a cluster, as --address does
  ranks: {scale_ranks}
  cpus_per_rank: 1
  gpus_per_rank: {scale_gpus}  # 1 trains on CUDA
"""

# Sections of a model that starts from random weights.
OWN_TOKENIZER = """\
tokenizer:
  type: bpe
  vocabulary_size: {scale_vocabulary}  # smaller for little text
  joint: true  # one vocabulary for both languages; false for different scripts
"""

OWN_MODEL = """\
model:
  encoder_layers: {scale_layers}
  decoder_layers: {scale_layers}
  width: {scale_width}
  feed_forward_width: {scale_feed_forward}
  heads: {scale_heads}
  dropout: {scale_dropout}  # higher for little text
  norm: pre  # trains with a short warm-up; the export to Hugging Face needs post
"""

# Sections of a model that starts from the weights in a folder.
THEIR_TOKENIZER = """\
tokenizer:
  type: marian  # from the folder: source.spm, target.spm, vocab.json
  vocabulary_size: {pieces}
  model: {folder}
  model_sha256: {sha256}
"""

THEIR_MODEL = """\
# The settings must be those of the folder's model; only dropout may change.
model:
{settings}
"""

THEIR_WEIGHTS = """
  init_from: {folder}
  frozen: []  # parameters not to train, such as ["*embedding*", "encoder.*"]"""
