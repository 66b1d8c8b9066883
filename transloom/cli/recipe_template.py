"""The recipe that `transloom init` writes, with a word on each choice."""

TEMPLATE = """\
# {source} to {target}: {pairs}. {scale.says}
#
#   transloom prepare {path}
#   transloom plan {path}    memory, disk and hours, before it trains
#   transloom train {path}   the same command goes on after a stop
#
# `transloom fields SECTION` explains every field, `transloom fields --search WORD` finds one.{held}

name: {name}
seed: 1                          # of the data's order, the first weights and dropout

data:
  source_language: {source}
  target_language: {target}
  dataset: datasets/{name}       # where `prepare` writes
  train:
    - {train}
  validation: {validation}
  tests: {tests}
  max_source_length: {scale.longest}         # pieces with EOS; longer pairs are dropped and counted
  max_target_length: {scale.longest}
  cleaning: {{drop_duplicates: true, max_length_ratio: 9}}

{tokenizer}
# A step is micro_batches_per_step micro-batches, dealt to however many ranks there are.
batching:
  max_tokens_per_micro_batch: {scale.micro_batch}    # of either side; memory follows it
  micro_batches_per_step: {scale.micro_batches}        # and as many ranks at most

{model}
trainer:{first_weights}
  max_steps: {scale.steps}                # about {scale.epochs} times through the corpus
  schedule:
    type: inverse_square_root
    warmup_steps: {scale.warm_up}
    peak_learning_rate: {rate}
  label_smoothing: 0.1
  gradient_clipping: 1.0
  validate_every_steps: {scale.every}
  early_stopping: {{metric: loss, patience: 5}}    # ends it when validation gets no better

engine: {{zero_stage: 1, precision: {scale.precision}}}

checkpoints: {{every_steps: {scale.every}, keep_last: 3}}

decoding: {{beam_size: 4, length_penalty: 0.6}}

cluster:
  address: null                  # start Ray here; HOST:PORT or --address joins a cluster
  ranks: {scale.ranks}
  cpus_per_rank: 1
  gpus_per_rank: {scale.gpus}               # 1 trains on CUDA
"""

# What a model has that begins with random weights.
OWN_TOKENIZER = """\
tokenizer:
  type: bpe
  vocabulary_size: {scale.vocabulary}         # fewer pieces for little text
  joint: true                    # one vocabulary for both languages; false: other alphabets
"""

OWN_MODEL = """\
model:
  encoder_layers: {scale.layers}
  decoder_layers: {scale.layers}
  width: {scale.width}
  feed_forward_width: {scale.feed_forward}
  heads: {scale.heads}
  dropout: {scale.dropout}                   # more for little text
  norm: pre                      # trains without a careful warm-up
"""

# What a model has that goes on from the weights of a folder.
THEIR_TOKENIZER = """\
tokenizer:
  type: marian                   # those of the folder: source.spm, target.spm, vocab.json
  vocabulary_size: {pieces}
  model: {folder}
  model_sha256: {sha256}
"""

THEIR_MODEL = """\
# The network is that of the folder; of these values only dropout may be another.
model:
{settings}
"""

THEIR_WEIGHTS = """
  init_from: {folder}
  frozen: []                     # what stays as it is, such as ["*embedding*", "encoder.*"]"""
