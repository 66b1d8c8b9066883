"""Headers of checkpoints without a run."""

from collections.abc import Mapping
from types import MappingProxyType

from trainer.checkpoints.format import CheckpointHeader


def bare_header(
    step: int, parameters: Mapping[str, list[int]] = MappingProxyType({})
) -> CheckpointHeader:
    """Return a header with nothing but a step and the shapes of parameters."""
    return CheckpointHeader(
        step=step,
        optimizer_step=step,
        cursor={"epoch": 0, "window": 0, "offset": 0},
        data_digest="",
        dataset_identity="",
        recipe={},
        identity={},
        numerics={},
        parameters=dict(parameters),
        parameter_groups=[],
        target_tokens_seen=0,
    )
