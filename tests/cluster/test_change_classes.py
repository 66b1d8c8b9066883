"""Change class of each field, with all fields in one table.

The author of a new field adds it here: does a different value make a different run (identity), may
a run continue with a different value (continuable), or does the value change no sample (execution)?
A wrong class would let one run follow two curves, or refuse to continue a run.
"""

from collections.abc import Iterator

import pytest
from support.recipes import tiny_recipe

from cluster.recipe import Recipe, walk_fields
from foundation.section import change_class
from trainer.recipe import leaves, recipe_class

CORPUS = """
    source target source_sha256 target_sha256 files files_sha256 format columns columns.source
    columns.target columns.score min_score name tag weight
"""
# Names of fields, by change class and section.
TABLE = {
    "identity": {
        "": "seed task extensions callbacks",
        "callbacks": "type options",
        "data": """
            source_language target_language train tests temperature context_sentences
            max_source_length max_target_length pairs_per_block blocks_per_shard
        """,
        "data.train": CORPUS,
        "data.validation": CORPUS,
        "data.tests": CORPUS,
        "data.cleaning": """
            normalise max_source_characters max_target_characters max_length_ratio drop_identical
            drop_duplicates drop_heldout
        """,
        "tokenizer": """
            type vocabulary_size joint character_coverage training_pairs model model_sha256
            byte_fallback verbatim
        """,
        "tokenizer.sampling": "alpha sides",
        "batching": "max_tokens_per_micro_batch micro_batches_per_step window_shards",
        "model": """
            network encoder_layers decoder_layers width feed_forward_width heads dropout
            attention_dropout norm share_embeddings activation output_bias decoder_start
            positions rotary_base key_value_heads norm_kind norm_epsilon
        """,
        "trainer": """
            loss loss_options label_smoothing r_drop gradient_clipping ema_decay init_from frozen
            spike_guard
        """,
        "trainer.optimizer": "type betas epsilon weight_decay options",
        "trainer.spike_guard": "window minimum_steps loss_deviations norm_deviations",
        "trainer.schedule": """
            type warmup_steps scale peak_learning_rate initial_learning_rate decay_until_step
            final_learning_rate options
        """,
        "engine": "precision numerics compile",
    },
    "continuable": {
        "trainer": """
            max_steps validate_every_steps early_stopping stop_after_skipped_steps
            validation_samples validation_scores
        """,
        "trainer.early_stopping": "metric patience",
        "checkpoints": "every_steps keep_last keep_best best_by keep_every_steps",
        "decoding": "beam_size length_penalty max_length_factor max_extra_length",
    },
    "execution": {
        "": "name extension_folder",
        "data": "mirror dataset cache cache_gigabytes max_heldout_length",
        "engine": """
            zero_stage attention activation_checkpointing verify_every_steps verify_reductions
        """,
        "checkpoints": "memory_every_steps",
        "tracking": "wandb project group tags notes probe_sentences",
        "tracking.notify": "targets events stalled_minutes",
        "tracking.notify.targets": "command_from format",
        "cluster": """
            address ranks cpus_per_rank niceness gpus_per_rank resources_per_rank node_labels
            placement data_workers cpus_per_data_worker
            steps_ahead data_memory_megabytes warm_spares grace_seconds wait_for_ranks_seconds
            wait_for_head_seconds node_usage_seconds node_check retry_exit_codes retries
            share share_weight rebalance_seconds price_per_rank_hour
        """,
        "cluster.deadlines": """
            start_seconds step_seconds adaptive_step validation_seconds save_seconds answer_seconds
        """,
        "cluster.slurm": """
            nodes partition account qos nice time_limit_minutes cpus_per_node options setup
        """,
        "cluster.kubernetes": """
            image queue priority_class ranks_per_pod memory_gigabytes
        """,
    },
}


def table() -> Iterator[tuple[str, str]]:
    """Return the dotted name and the class of each field in the table."""
    for change, sections in TABLE.items():
        for section, names in sections.items():
            yield from ((f"{section}.{name}".lstrip("."), change) for name in names.split())


def marked() -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the class of each field in the configs."""
    for name, field in walk_fields(recipe_class(Recipe)):
        if change := change_class(field):
            yield name, change


def test_every_field_has_its_class_in_the_table():
    assert dict(marked()) == dict(table())


def test_no_field_has_two_classes():
    for pairs in (list(marked()), list(table())):
        assert len(pairs) == len(dict(pairs))


@pytest.mark.parametrize("early_stopping", [None, {"patience": 2}])
def test_each_value_of_a_recipe_has_the_class_of_its_field(tmp_path, early_stopping):
    recipe = tiny_recipe(tmp_path, early_stopping=early_stopping)
    found = {name: change for name, _, change in leaves(recipe)}
    assert found.items() <= dict(table()).items()
    assert {"seed", "trainer.early_stopping", "cluster.ranks", "data.train"} <= found.keys()
