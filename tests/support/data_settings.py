"""Settings that dataset preparation needs, for tests without a recipe."""

from data_pipeline.config.data import BatchingConfig, DataConfig, DataSettings, TokenizerConfig


def settings_of(
    data: DataConfig, tokenizer: TokenizerConfig, task: str = "translation"
) -> DataSettings:
    """Return settings whose batching section is not used by the preparation."""
    batching = BatchingConfig(max_tokens_per_micro_batch=1, micro_batches_per_step=1)
    return DataSettings(data, tokenizer, batching, seed=0, task=task)
