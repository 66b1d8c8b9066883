"""Settings of the stream that tests of data workers read."""

from dataclasses import replace

import pytest
from support.recipes import tiny_recipe


@pytest.fixture(scope="module")
def settings(phrasebook):
    """Return data settings with windows of one shard, on the phrase book."""
    settings = tiny_recipe(phrasebook).data_settings
    batching = {"max_tokens_per_micro_batch": 512, "window_shards": 1}
    return replace(settings, batching=settings.batching.model_copy(update=batching))
