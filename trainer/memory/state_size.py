"""Size of a run's state on one rank, by part, computed without allocating anything.

The table shows bytes. There are P trained parameters and N ranks. A weight has w bytes (fp32: 4,
bf16: 2), and the optimizer keeps m moments of each parameter (AdamW: 2).

    | part        | stage 0 | stage 1                     | stage 2   | stage 3   |
    |-------------|---------|-----------------------------|-----------|-----------|
    | weights     | wP      | wP                          | wP        | wP / N    |
    | fp32 copy   | 0       | 4P / N                      | 4P / N    | 4P / N    |
    | gradients   | 4P      | fp32: 4P + 4P / N, bf16: 4P | 4P / N    | 4P / N    |
    | bucket      | 0       | fp32: 4 B, bf16: 6 C        | w B       | w B       |
    | moments     | 4mP     | 4mP / N                     | 4mP / N   | 4mP / N   |

B is the number of gradient elements in a bucket that DeepSpeed reduces in one collective. C is the
number of elements in a bucket that a GPU converts to fp32 and adds to its sums. The sizes of
gradients and bucket are their peaks within a step. In addition, F frozen parameters take the bytes
of their weights, and 4F / N bytes of host memory for the fp32 copy that checkpoints need.
Activations, which forward keeps for backward, depend on the batches and are measured
(`cluster.planning.measurement`).
"""

from dataclasses import dataclass

from trainer.config import EngineConfig

FP32 = 4
# Number of elements; copied, because trainer/zero/settings.py imports torch.
LARGEST_BUCKET = 500_000_000
CAPACITY = 2**25  # elements in a bucket of trainer.zero.gradient_buckets on a GPU; less on a CPU


@dataclass(frozen=True)
class StateSize:
    """Bytes of one rank's state, by part.

    Attributes:
        weights: the weights that forward reads.
        master: the fp32 copy of the weights that the optimizer updates; 0 if it updates the weights
            themselves.
        gradients: the gradients that the passes of a step accumulate.
        bucket: the gradients that DeepSpeed reduces in one collective, or the gradients that are
            added to their sums at the same time.
        moments: the moments of the optimizer.
        average: the moving average of the weights; 0 if the run keeps none.
        checkpoint_copy: the copy from which a checkpoint is written in the background; always in
            host memory.
        frozen: the weights that are not trained, in fp32; always in host memory.
    """

    weights: int
    master: int
    gradients: int
    bucket: int
    moments: int
    average: int
    checkpoint_copy: int
    frozen: int = 0

    @property
    def on_device(self) -> int:
        """Bytes on the device that computes: the rank's GPU, or host memory."""
        parts = (self.weights, self.master, self.gradients, self.bucket, self.moments, self.average)
        return sum(parts)

    @property
    def on_host(self) -> int:
        """Bytes that are in host memory even if a GPU computes."""
        return self.checkpoint_copy + self.frozen


def state_size(
    parameters: int,
    engine: EngineConfig,
    *,
    moments: int,
    averaged: bool,
    ranks: int,
    frozen: int = 0,
) -> StateSize:
    """Return the size of one rank's state.

    Args:
        parameters: the number of parameters, including frozen ones.
        engine: precision and ZeRO stage.
        moments: the number of moments that the optimizer keeps of each parameter.
        averaged: whether the run keeps a moving average of its weights.
        ranks: the number of ranks.
        frozen: the number of parameters that are not trained.
    """
    trained = parameters - frozen
    stage, width = engine.zero_stage, 2 if engine.precision == "bf16" else FP32
    share = -(-trained // ranks)
    cut = trained if stage == 0 else share
    flat_sums = stage == 1 and width < FP32  # see trainer.zero.stages.FlatSums
    if flat_sums:
        bucket = (width + FP32) * min(trained, CAPACITY)
    else:
        bucket = width * min(trained, LARGEST_BUCKET) if stage else 0
    gradients = {
        0: FP32 * trained,
        1: FP32 * trained + (0 if flat_sums else FP32 * share),
    }.get(stage, FP32 * share)
    return StateSize(
        weights=width * (-(-parameters // ranks) if stage == 3 else parameters),
        master=FP32 * share if stage else 0,
        gradients=gradients,
        bucket=bucket,
        moments=FP32 * moments * cut,
        average=FP32 * share if averaged else 0,
        checkpoint_copy=checkpoint_bytes(
            -(-parameters // ranks), moments=moments, averaged=averaged, frozen=-(-frozen // ranks)
        ),
        frozen=FP32 * -(-frozen // ranks),
    )


def checkpoint_bytes(parameters: int, *, moments: int, averaged: bool, frozen: int = 0) -> int:
    """Return the bytes of a checkpoint with these parameters, or of a rank's part of it.

    Args:
        parameters: the number of parameters, including frozen ones.
        moments: the number of moments that the optimizer keeps of each parameter.
        averaged: whether the run keeps a moving average of its weights.
        frozen: the number of parameters that are not trained.
    """
    return FP32 * (parameters + (moments + averaged) * (parameters - frozen))
